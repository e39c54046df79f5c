"""The command line with models and ways of training other than the shipped configs name."""

import json
import sys

import pytest
import torch
import yaml
from transformers import LlamaConfig, VipLlavaConfig, VipLlavaForConditionalGeneration

from support.commands import ROOT, SHORT, run
from support.documented import blocks
from support.families import llava, random_model
from support.tiny_text import tied
from viker_lightning.cli.export import main as export
from viker_lightning.cli.main import main
from viker_lightning.models import MLLM, folder_fingerprint
from viker_lightning.models.families import Unknown


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said_in_one_line(tmp_path):
    with pytest.raises(
        SystemExit, match=r"^error: trainer: No supported gpu backend found!; see configs/trainer"
    ) as stop:
        run("fit", "mini/viker", tmp_path, None, *SHORT, "--config=configs/trainer/gpu.yaml")
    assert "\n" not in str(stop.value.code)


def test_a_wrong_strategy_is_said_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: trainer: .*invalid strategy name: `strategy='nonsense'`") as stop:
        run("fit", "mini/viker", tmp_path, None, *SHORT, "--trainer.strategy=nonsense")
    assert "\n" not in str(stop.value.code)


@pytest.mark.extended
def test_full_fine_tuning_writes_a_model_that_validates_alike(base_folder, tmp_path):
    folder = tmp_path / "full"
    options = (*SHORT, "--data.splits=[forget,retain]")
    full = ("--model.lora=null", "--model.lr=1e-3")
    results = run("fit", "mini/npo", folder, base_folder, *options, *full)
    assert results["before"] != results["after"]
    assert (folder / "model/model.safetensors").is_file() and not (folder / "adapter").exists()
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["adapter"] is None and provenance["quantize"] is None
    assert provenance["base_fingerprint"] == folder_fingerprint(base_folder)
    assert provenance["base_commit"] is provenance["base_revision"] is None
    assert folder_fingerprint(folder / "model") != provenance["base_fingerprint"]
    again = run("validate", "mini/npo", tmp_path / "again", folder, *options)["validate"]
    for split in ("forget", "retain"):
        known = results["after"][split]
        shared = [name for name, value in known.items() if isinstance(value, float) and name in again[split]]
        assert "private_probability" in shared
        assert {n: again[split][n] for n in shared} == pytest.approx({n: known[n] for n in shared}, abs=1e-6)


@pytest.mark.extended
def test_model_without_a_family_file_is_unlearned(tmp_path):
    random_model("gemma3").save(tmp_path / "gemma3")
    few = (*SHORT, "--trainer.max_steps=1", "--data.splits=[forget]", "--evaluation.coherence=false")
    results = run("fit", "mini/npo", tmp_path / "run", tmp_path / "gemma3", *few)
    assert results["before"]["forget"] != results["after"]["forget"]
    assert (tmp_path / "run/adapter/adapter_model.safetensors").is_file()


CHAT = (
    "{% for m in messages %}###{{ 'Human' if m.role == 'user' else 'Assistant' }}: {% for c in m.content %}"
    "{% if c.type == 'image' %}<image>\n{% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}###Assistant: {% endif %}"
)


@pytest.fixture
def vip_llava(tmp_path, monkeypatch):
    """A folder with a tiny ViP-LLaVA, and the file of docs/model.md that describes its family, to be imported."""
    (block,) = [b for b in blocks(ROOT / "docs/model.md") if b.file == "vip_llava.py"]
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/vip_llava.py").write_text(block.text)
    monkeypatch.syspath_prepend(str(tmp_path / "beside"))
    like = llava()
    like.processor.chat_template = CHAT
    config = VipLlavaConfig(
        vision_config=like.base.config.vision_config,
        text_config=LlamaConfig(**tied({}, like.processor.tokenizer.get_vocab(), "</s>")),
        image_token_index=like.base.config.image_token_id,
        vision_feature_layers=[-1, -2],
    )
    torch.manual_seed(0)
    MLLM(VipLlavaForConditionalGeneration(config), like.processor, family=Unknown()).save(tmp_path / "model")
    yield tmp_path / "model"
    sys.modules.pop("vip_llava", None)


@pytest.mark.extended
def test_a_family_from_outside_is_unlearned_and_exported(vip_llava, tmp_path, caplog):
    caplog.set_level("INFO", "viker_lightning")
    family, folder = "--model.family=vip_llava.VipLlava", tmp_path / "run"
    quick = (*SHORT, "--trainer.max_steps=1", "--data.splits=[forget]", "--evaluation.coherence=false")
    run("fit", "mini/npo", folder, vip_llava, *quick, family, "--model.save_merged=true")
    assert any("packed sequences" in message for message in caplog.messages)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["init_args"]["family"]["class_path"] == "vip_llava.VipLlava"
    export([str(folder), "--family", "vip_llava.VipLlava"])
    caplog.clear()
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers"
    questions.write_text('{"question": "Who is Ada?"}')
    options = [f"--model.source={folder}", f"--data.root={questions}", f"--trainer.default_root_dir={answers}"]
    main(["predict", "--config=configs/data/questions.yaml", *options, "--answers.max_new_tokens=2", family])
    assert any("packed sequences" in message for message in caplog.messages)
    with pytest.raises(SystemExit, match=r"^error: model.family: Llava is for LlavaForCond\w+, not for 'VipLlava"):
        export([str(folder), "--family=viker_lightning.models.families.Llava"])
    with pytest.raises(SystemExit, match=r"^error: family: 'vip_llava.VipLava' cannot be imported"):
        export([str(folder), "--family=vip_llava.VipLava"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.family=Idefics2"], "Idefics2 is for Idefics2ForConditionalGeneration, not for 'LlavaFor"),
        (["--model.revision=v1"], "revision=v1: only a hub id has revisions"),
        (["--model.lora=null", "--model.adapter=x"], "adapter=x goes with LoRA, but lora is null"),
        (["--model.lora=null", "--model.method.direction=reverse"], "the original model is asked in every step"),
    ],
)
def test_options_that_do_not_go_together(options, message, base_folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run("fit", "mini/viker", tmp_path, base_folder, *SHORT, *options)
    assert message in f"{stop.value.code}\n{capsys.readouterr().err}"
    assert "\n" not in str(stop.value.code)
