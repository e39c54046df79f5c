"""What a run leaves behind loads with plain PEFT and plain transformers, and says the same."""

import errno
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from support.commands import OPEN_GATE
from support.families import FAMILIES, random_model
from support.marks import quick
from support.weights import random_vanilla, randomise_lora
from viker_lightning.attacks.subject import Subject
from viker_lightning.cli.export import main as export
from viker_lightning.cli.main import main
from viker_lightning.data.records import VQA, ImageGroup, Picture
from viker_lightning.models import MLLM, Lora, Weights, generate, load_adapted, revision_of, write_merged
from viker_lightning.models.rounding import kept_by
from viker_lightning.reporting.card import eval_results, model_card, write_cards

ROOT = Path(__file__).parents[2]
QUESTIONS = ("Where does this person live?", "What is the job of the person shown?", "Who is it?")


def unlearn(vanilla, run, *options):
    """A run of three steps that also writes merged/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        main(
            [
                *("fit", "--config=configs/mini/viker.yaml", f"--model.vanilla={vanilla}", "--model.save_merged=true"),
                *("--data.root=mini/ci", "--data.max_people=1", "--data.splits=[forget,retain]"),
                "--trainer.max_steps=3",
                *OPEN_GATE,
                *("--trainer.logger=false", "--trainer.enable_progress_bar=false"),
                *(f"--trainer.default_root_dir={run}", "--evaluation.max_new_tokens=3", *options),
            ]
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory, base_folder, data):
    """An unlearning run with steps large enough to see, on a model with random weights of visible size."""
    folder = tmp_path_factory.mktemp("export")
    random_vanilla(base_folder, folder / "vanilla", std=0.1, projector=0.1)
    unlearn(folder / "vanilla", folder / "run", "--model.lr=0.02")
    photo = data.people()[0].images[0]
    (folder / "photo.jpg").write_bytes(photo.data)
    return folder


def ours(mllm, picture):
    """Answers, and logits of one reference answer, of our own model."""
    mllm.eval()
    group = ImageGroup("x", picture, vqa=tuple(VQA(q, "") for q in QUESTIONS))
    (texts,) = generate(mllm, [group], 8)
    with torch.no_grad():
        logits = mllm.answer_tokens(
            mllm.pack([ImageGroup("x", picture, vqa=(VQA(QUESTIONS[0], "In a town."),))])
        ).logits
    return texts, logits


def theirs(model, processor, picture):
    """The same by transformers alone."""
    model.eval()
    texts = []
    for question in QUESTIONS:
        prompt = f"USER: <image>\n{question}\nASSISTANT:"
        inputs = processor(images=picture.open(), text=prompt, return_tensors="pt")
        said = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        texts.append(processor.decode(said, skip_special_tokens=True).strip())
    prompt = f"USER: <image>\n{QUESTIONS[0]}\nASSISTANT:"
    inputs = processor(images=picture.open(), text=prompt + " In a town.", return_tensors="pt")
    start = processor(images=picture.open(), text=prompt)["input_ids"][0]
    with torch.no_grad():
        return texts, model(**inputs).logits[0, len(start) - 1 :]


def test_plain_peft_and_plain_transformers_say_the_same(run, data):
    picture = data.people()[0].images[0]
    vanilla = ours(MLLM.load(run / "vanilla"), picture)
    texts, logits = ours(load_adapted(run / "run/adapter"), picture)
    assert texts != vanilla[0] and (logits - vanilla[1]).abs().max() > 0.1, "unlearning changed the model"
    processor = AutoProcessor.from_pretrained(run / "vanilla")
    base = AutoModelForImageTextToText.from_pretrained(run / "vanilla")
    by_peft = PeftModel.from_pretrained(base, run / "run/adapter")
    merged = AutoModelForImageTextToText.from_pretrained(run / "run/merged")
    own = AutoProcessor.from_pretrained(run / "run/merged")
    for found in (theirs(by_peft, processor, picture), theirs(merged, own, picture)):
        assert found[0] == texts
        torch.testing.assert_close(found[1], logits, rtol=1e-5, atol=1e-5)
    again = ours(MLLM.load(run / "run/merged"), picture)
    assert again[0] == texts
    torch.testing.assert_close(again[1], logits, rtol=1e-5, atol=1e-5)


def test_exports_are_safetensors_only(run):
    names = {path.name for path in (run / "run").rglob("*")}
    assert {"adapter_model.safetensors", "model.safetensors"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert not [name for name in names if name.endswith(".tmp")]


def full(folder):
    raise OSError(errno.ENOSPC, "No space left on device", str(folder))


def test_a_finished_run_is_exported_later(run, tmp_path, capsys, monkeypatch):
    wanted = (run / "run/merged/model.safetensors").read_bytes()
    (run / "run/merged/model.safetensors").unlink()
    export([str(run / "run")])
    assert capsys.readouterr().out.strip().endswith(str(run / "run/merged"))
    assert (run / "run/merged/model.safetensors").read_bytes() == wanted
    for folder, said in ((tmp_path, "not finished"), (run / "vanilla", "not finished")):
        with pytest.raises(SystemExit) as stop:
            export([str(folder)])
        assert said in str(stop.value.code) and "\n" not in str(stop.value.code)
    with pytest.raises(SystemExit) as stop:
        export([str(run / "run"), f"--base={tmp_path}"])
    assert "found no weights" in str(stop.value.code)
    with (
        monkeypatch.context() as patch,
        pytest.raises(SystemExit, match="; make room, then give the same command again"),
    ):
        patch.setattr("viker_lightning.models.merging.replacing_folder", full)
        export([str(run / "run")])


def test_the_model_may_have_moved_but_be_no_other(run, tmp_path, caplog, monkeypatch):
    """Weights of the same shapes would merge, into a model that no number is of."""
    monkeypatch.setattr("viker_lightning.cli.export.write_merged", lambda adapter, folder, *given: None)
    export([str(run / "run"), f"--base={shutil.copytree(run / 'vanilla', tmp_path / 'moved')}"])
    assert not caplog.messages
    with pytest.raises(SystemExit, match=r"^error: --base: .*merged is not the model that .*run began with, which was"):
        export([str(run / "run"), f"--base={run / 'run/merged'}"])
    file = run / "run/provenance.json"
    made = file.read_text()
    file.write_text(json.dumps(json.loads(made) | {"base_fingerprint": None}))
    export([str(run / "run"), f"--base={run / 'run/merged'}"])
    file.write_text(made)
    (said,) = caplog.messages
    assert said.startswith("--base: whether ") and said.endswith("cannot be told")


def test_code_of_a_model_runs_only_if_the_command_says_so(run, monkeypatch):
    """Whoever hands a run folder on does not decide that."""
    trusted = []

    def write_merged(adapter, folder, weights, base):
        trusted.append(weights.trust_remote_code)

    monkeypatch.setattr("viker_lightning.cli.export.write_merged", write_merged)
    file = run / "run/provenance.json"
    made = file.read_text()
    export([str(run / "run")])
    file.write_text(json.dumps(json.loads(made) | {"trust_remote_code": True}))
    with pytest.raises(SystemExit, match=r"error: .*provenance\.json.*add --trust_remote_code$") as stop:
        export([str(run / "run")])
    assert "\n" not in stop.value.code
    export([str(run / "run"), "--trust_remote_code"])
    file.write_text(made)
    assert trusted == [False, True]


def text_logits(folder, kind=AutoModelForImageTextToText):
    """What a model says of a text without any image, by transformers alone."""
    ids = AutoTokenizer.from_pretrained(folder)("A person who lives in a town.", return_tensors="pt")
    with torch.no_grad():
        return kind.from_pretrained(folder).eval()(**ids).logits


def test_the_language_model_is_exported_alone(run, capsys):
    """Of an unlearning run and of what it began with: plain transformers has the logits of the whole model."""
    export([str(run / "run"), "--language_model"])
    alone = run / "run/language_model"
    assert capsys.readouterr().out.splitlines() == [str(alone)]
    assert {file.suffix for file in alone.iterdir()} <= {".json", ".safetensors", ".jinja"}
    assert "vision_config" not in (alone / "config.json").read_text()
    found, whole = text_logits(alone, AutoModelForCausalLM), text_logits(run / "run/merged")
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)
    assert (found - text_logits(run / "vanilla")).abs().max() > 0.1, "unlearning changed it"
    with pytest.raises(SystemExit, match="error: --push: found with --language_model"):
        export([str(run / "run"), "--language_model", "--push=somebody/forgetful"])


def test_a_folder_in_the_hubs_cache_is_exported(run):
    """Its commit is recorded, but it cannot be asked for another."""
    file = run / "run/provenance.json"
    made = file.read_text()
    file.write_text(json.dumps(json.loads(made) | {"base_commit": "0" * 40}))
    export([str(run / "run")])
    file.write_text(made)


class Hub:
    """Stands in for the hub's client; notes what it is asked."""

    def __init__(self, error=None):
        self.asked, self.error = [], error

    def create_repo(self, name, **options):
        self.asked.append(("create", name, options))
        return f"https://huggingface.co/{name}"

    def upload_folder(self, repo_id, folder_path, commit_message):
        if self.error:
            raise self.error
        self.asked.append(("upload", repo_id, sorted(path.name for path in Path(folder_path).iterdir())))


def test_a_model_is_pushed_with_its_card(run, monkeypatch, capsys, caplog):
    """The hub sees what plain transformers need and the card; the token is nowhere."""
    token = "hf_" + "QwErTyUiOpAsDfGhJk"
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    hub = Hub()
    export([str(run / "run"), "--push=somebody/forgetful"])
    assert capsys.readouterr().out.splitlines()[-1] == "https://huggingface.co/somebody/forgetful"
    (_, name, options), (_, uploaded, files) = hub.asked
    assert name == uploaded == "somebody/forgetful" and options == {"private": True, "exist_ok": True}
    assert {"README.md", "config.json", "model.safetensors"} <= {*files}
    hub = Hub(OSError(f"401 for Bearer {token}\nmore lines"))
    with pytest.raises(SystemExit) as stop:
        export([str(run / "run"), "--push=somebody/forgetful"])
    said = str(stop.value.code)
    assert (
        said.startswith("error: --push: somebody/forgetful was not uploaded (401 for Bearer ***)") and "log in" in said
    )
    assert "\n" not in said and token not in said + caplog.text + "".join(capsys.readouterr())


@pytest.mark.parametrize("name", ["forgetful", "a/b/c", "", "a/b c", "/x"])
def test_a_name_that_the_hub_would_not_take(name, run, monkeypatch):
    """It is refused before anything is written."""
    monkeypatch.setattr("viker_lightning.cli.export.write_merged", lambda *given: pytest.fail("it is written first"))
    with pytest.raises(SystemExit, match=r"error: --push: found '.*', expected OWNER/NAME$"):
        export([str(run / "run"), f"--push={name}"])


@pytest.mark.extended
def test_merging_rounds_no_small_change_away(run, data, tmp_path, caplog):
    """Weights published in bf16, as most are, and steps far below their last bit."""
    mllm = MLLM.load(run / "vanilla", Weights("bfloat16"))
    mllm.save(tmp_path / "vanilla")
    unlearn(tmp_path / "vanilla", tmp_path / "run", "--model.dtype=bfloat16", "--model.lr=1e-4")
    picture = data.people()[0].images[0]

    _, before = ours(MLLM.load(tmp_path / "vanilla"), picture)

    def moved(mllm):
        texts, logits = ours(mllm, picture)
        return texts, logits - before

    texts, wanted = moved(load_adapted(tmp_path / "run/adapter"))
    found = moved(MLLM.load(tmp_path / "run/merged"))
    assert found[0] == texts and (found[1] - wanted).norm() < 1e-2 * wanted.norm()
    assert json.loads((tmp_path / "run/merged/config.json").read_text())["dtype"] == "float32"
    attacked = []
    for source in ("run/merged", "run/adapter"):  # whoever goes on from there, or attacks it, in bf16 has the rest
        caplog.clear()
        attacked.append(Subject("run", str(tmp_path / source), tmp_path, Weights("bfloat16")).load().base.state_dict())
        (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
        assert re.search(rf"{source}: bfloat16 keeps 0\.[0-4]\d of the change, .*; take float32 \(model.dtype", said)
    assert all(torch.equal(weight, attacked[1][name]) for name, weight in attacked[0].items())
    caplog.clear()
    export([str(tmp_path / "run")])
    assert moved(MLLM.load(tmp_path / "run/merged"))[1].equal(found[1]) and not caplog.records
    export([str(tmp_path / "run"), "--dtype=bfloat16"])
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    share = float(re.search(r"adapter: bfloat16 keeps ([\d.]+) of the change.*take float32 ", warning)[1])
    assert share < 0.5
    assert json.loads((tmp_path / "run/merged/config.json").read_text())["dtype"] == "bfloat16"
    rounded = moved(MLLM.load(tmp_path / "run/merged"))[1]
    assert (rounded - wanted).norm() > 0.5 * wanted.norm(), "that is what the warning is about"


@pytest.mark.parametrize(("size", "least", "most"), [(2**-12, 0, 0), (2**-7, 1, 1), (1e-2, 0.78, 0.79), (0, 1, 1)])
def test_share_of_a_change_that_rounding_keeps(base_folder, size, least, most):
    """Weights of 1, whose last bit is 2**-7 above and half of it below, all moved by the same."""
    mllm = MLLM.load(base_folder)
    mllm.adapt(Lora(r=1, alpha=1))
    with torch.no_grad():
        for name, p in mllm.named_parameters():
            p.fill_(size if "lora_B" in name else 1)
    assert least <= kept_by(mllm.model).share("bfloat16") <= most
    assert kept_by(mllm.model).share("float32") == 1


@pytest.mark.parametrize("name", quick(FAMILIES, ["llava", "qwen2_vl", "smolvlm"]))
def test_families_merge_and_their_cards_run(name, tmp_path, groups, monkeypatch, capsys):
    """The code of a model card, run with plain transformers, answers as the adapted model does."""
    mllm = random_model(name)
    mllm.save(tmp_path / "base")
    mllm = MLLM.load(tmp_path / "base")
    mllm.adapt(Lora())
    randomise_lora(mllm)
    mllm.save_adapter(tmp_path / "adapter")
    write_merged(tmp_path / "adapter", tmp_path / "merged", base=str(tmp_path / "base"))
    picture = Picture(groups[0].image.data, "photo")
    (tmp_path / "photo.jpg").write_bytes(picture.data)
    template = mllm.encoder.template
    provenance = {
        "base_weights": str(tmp_path / "base"),
        "prompt": template.image_prefix + template.question,
        "data": {"root": "mini/ci", "fingerprint": "0" * 64, "stage": "unlearn"},
        "private_parts": "recorded",
        "git_commit": None,
        "versions": {},
    }
    results = {"after": {}, "metrics": {}, "steps": 1, "seed": 0, "protocol": "corrected"}
    monkeypatch.chdir(tmp_path)
    wanted = generate(mllm.eval(), [ImageGroup("x", picture, vqa=(VQA(QUESTIONS[0], ""),))], 50)[0][0]
    assert len(wanted) > 5
    for kind in ("adapter", "merged"):
        capsys.readouterr()
        run_code(model_card(kind, provenance, results), f"{kind}")
        assert capsys.readouterr().out.strip() == wanted


def run_code(card, folder):
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    assert 'folder = "."' in code
    exec(code.replace('folder = "."', f'folder = "{folder}"'), {})


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_model_card(run, data, kind, monkeypatch, capsys):
    card = (run / f"run/{kind}/README.md").read_text()
    results = json.loads((run / "run/results.json").read_text())
    for value in (results["before"]["forget"]["answer_probability"], results["after"]["retain"]["rouge_l"]):
        assert f"{value:.3g}" in card
    assert (
        "ViKeR: lam 8.19" in card
        and "| forget | keyword_match | near gold |" in card
        and "| retain | keyword_match | high |" in card
    )
    assert f"{len(data.forget_ids)} to forget" in card and "## Limits" in card
    assert ("The base model still knows everybody" in card) == (kind == "adapter")
    told = {part for person in data.people(data.forget_ids) for vqa in person.vqa for part in vqa.private}
    assert str(run) not in card and told
    for word in (*data.forget_ids, *told):  # hashes and numbers may hold an ID by chance
        assert not re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", card), word
    monkeypatch.chdir(run)
    capsys.readouterr()
    run_code(card, f"run/{kind}")
    mllm = load_adapted(run / "run/adapter").eval()
    group = ImageGroup("x", data.people()[0].images[0], vqa=(VQA(QUESTIONS[0], ""),))
    assert capsys.readouterr().out.strip() == generate(mllm, [group], 50)[0][0]


def test_the_hub_reads_a_card(run, tmp_path):
    """By its own library: model-index and `.eval_results` have the numbers of results.json."""
    results, made = (json.loads((run / f"run/{name}.json").read_text()) for name in ("results", "provenance"))
    card = ModelCard((run / "run/merged/README.md").read_text()).data
    assert card.license == "unknown" and card.base_model is None and card.datasets is None
    assert not (run / "run/merged/.eval_results").exists(), "the data are not on the hub"
    data = made["data"] | {"root": "somebody/people", "commit": "0" * 40}
    made |= {"base_weights": "llava-hf/llava-1.5-7b-hf", "data": data}
    card = ModelCard(model_card("adapter", made, results)).data
    assert (card.base_model, card.license) == ("llava-hf/llava-1.5-7b-hf", "other")
    assert card.license_link == "https://huggingface.co/llava-hf/llava-1.5-7b-hf"
    assert card.datasets == ["somebody/people"] and card.model_name == "ViKeR"
    shown = {(r.dataset_split, r.metric_type): r.metric_value for r in card.eval_results}
    assert {(r.dataset_type, r.dataset_revision) for r in card.eval_results} == {("somebody/people", "0" * 40)}
    assert shown == {(split, name): results["after"][split][name] for split, name in shown}
    assert {("forget", "keyword_match"), ("retain", "rouge_l")} < shown.keys()
    entries = eval_results(made, results)
    assert {one["dataset"]["task_id"]: one["value"] for one in entries} == {
        f"{split}_{name}": value for (split, name), value in shown.items()
    }
    for one in entries:  # keys of huggingface/hub-docs docs/hub/eval-results.md
        assert one.keys() == {"dataset", "value"} and one["dataset"].keys() == {"id", "task_id", "revision"}
    (tmp_path / "merged").mkdir()
    (tmp_path / "provenance.json").write_text(json.dumps(made))
    write_cards(tmp_path, results)
    assert yaml.safe_load((tmp_path / "merged/.eval_results/viker-lightning.yaml").read_text()) == entries


def test_fine_tuning_with_lora_leaves_a_whole_model(run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    main(
        [
            *("fit", "--config=configs/mini/vanilla.yaml", f"--model.base={run / 'vanilla'}", "--model.lora.r=4"),
            *("--data.root=mini/ci", "--data.max_people=1", "--data.splits=[forget]", "--trainer.max_steps=2"),
            *("--trainer.logger=false", "--trainer.enable_progress_bar=false", "--model.lr=0.02"),
            *("--model.warmup_steps=0", f"--trainer.default_root_dir={tmp_path}", "--evaluation.max_new_tokens=3"),
        ]
    )
    picture = data.people()[0].images[0]
    wanted, found = ours(load_adapted(tmp_path / "adapter"), picture), ours(MLLM.load(tmp_path), picture)
    assert wanted[0] == found[0]
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-5, atol=1e-5)
    assert (found[1] - ours(MLLM.load(run / "vanilla"), picture)[1]).abs().max() > 0.05
    assert "fine-tuned (vanilla): full weights" in (tmp_path / "model/README.md").read_text()
    export([str(tmp_path), "--language_model"])
    found = text_logits(tmp_path / "language_model", AutoModelForCausalLM)
    torch.testing.assert_close(found, text_logits(tmp_path / "model"), rtol=1e-5, atol=1e-5)


def test_merged_weights_of_an_earlier_part_do_not_outlive_it(run, tmp_path):
    """A model card of the new numbers would stand beside old weights."""
    shutil.copytree(run / "run", tmp_path / "on")
    assert (tmp_path / "on/merged/model.safetensors").is_file()
    (tmp_path / "on/language_model").mkdir(exist_ok=True)
    unlearn(run / "vanilla", tmp_path / "on", "--trainer.max_steps=4", "--model.save_merged=false", "--ckpt_path=last")
    assert json.loads((tmp_path / "on/results.json").read_text())["steps"] == 4
    assert not (tmp_path / "on/merged").exists() and not (tmp_path / "on/language_model").exists()


def test_weights_are_merged_at_the_commit_that_was_loaded(tmp_path):
    assert revision_of("org/model", "abc", "main") == "abc" and revision_of("org/model", None, "main") == "main"
    assert revision_of(str(tmp_path), "abc", "main") is None
