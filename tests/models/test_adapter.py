"""The first step reaches everything that is trained, and a run knows which weights it began with."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from huggingface_hub import constants
from lightning.pytorch import Trainer
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from support import forked
from viker_lightning.errors import UserError
from viker_lightning.methods import GradientAscent
from viker_lightning.models import (
    MLLM,
    Lora,
    Weights,
    check_first_gradients,
    folder_fingerprint,
    identify_weights,
    load_adapted,
)
from viker_lightning.models.adapter import _check_base
from viker_lightning.training import Unlearn, base


@pytest.fixture
def fresh(base_folder, groups):
    """A model with new adapters after a backward pass."""
    model = MLLM.load(base_folder)
    model.adapt(Lora(r=2))
    model.answer_tokens(model.pack(groups)).log_probs.mean().backward()
    return model


def adapters(model):
    return {name: p for name, p in model.named_parameters() if "lora_B" in name}


def test_first_gradient_of_new_adapters(fresh):
    firsts = [p for name, p in fresh.named_parameters() if "lora_A" in name]
    assert all(p.grad.abs().max() == 0 for p in firsts), "nothing to judge by yet"
    assert check_first_gradients(fresh)


def test_missed_adapter_is_an_error(fresh):
    name, weight = list(adapters(fresh).items())[3]
    layer = name.split("base_model.model.")[1].split(".lora_B")[0]
    weight.grad = None
    with pytest.raises(UserError, match=f"no gradient reaches 1 of 21 adapters, e.g. {layer};"):
        check_first_gradients(fresh)
    weight.grad = torch.full_like(weight, torch.nan)
    with pytest.raises(UserError, match=f"not finite, e.g. {layer}"):
        check_first_gradients(fresh)
    assert check_first_gradients(fresh, finite=False)


def test_a_projector_trained_beside_adapters_counts(base_folder, groups):
    model = MLLM.load(base_folder)
    model.adapt(Lora(r=2), projector=True)
    model.answer_tokens(model.pack(groups)).log_probs.mean().backward()
    assert check_first_gradients(model)
    for name, p in model.named_parameters():
        if p.requires_grad and "multi_modal_projector" in name:
            p.grad = None
    with pytest.raises(UserError, match=r"no gradient reaches 4 of 25 trained weights, e.g. .*multi_modal_projector"):
        check_first_gradients(model)


def test_step_without_any_gradient_is_not_judged(fresh):
    for weight in adapters(fresh).values():
        weight.grad.zero_()
    assert not check_first_gradients(fresh)


@pytest.fixture
def full(base_folder, groups):
    """A model trained in full after a backward pass, and one weight it does not use."""
    model = MLLM.load(base_folder)
    model.train_fully()
    model.language_model.register_parameter("spare", torch.nn.Parameter(torch.ones(3)))
    model.answer_tokens(model.pack(groups)).log_probs.mean().backward()
    return model


def test_a_weight_without_use_stops_full_fine_tuning(full):
    trained = sum(p.requires_grad for p in full.parameters())
    named = rf"no gradient reaches 1 of {trained} trained weights, e.g. model.language_model.spare; .*model.lora\)"
    with pytest.raises(UserError, match=named):
        check_first_gradients(full)
    full.language_model.spare.requires_grad_(False)
    assert check_first_gradients(full), "all others are reached, the tied embedding and the projector among them"


def test_the_projector_waits_for_an_image(full):
    full.language_model.spare.requires_grad_(False)
    projector = full.base.model.multi_modal_projector
    projector.zero_grad()
    assert not check_first_gradients(full, images=False), "not judged yet"
    with pytest.raises(UserError, match=r"e.g. model.multi_modal_projector"):
        check_first_gradients(full)


def test_other_processes_may_hold_what_this_one_does_not(full, monkeypatch):
    """The last of four processes has no part of three rows, and hears of a gradient from another one."""
    dist.init_process_group("fake", store=FakeStore(), rank=3, world_size=4)
    try:
        spare, mesh = full.language_model.spare, init_device_mesh("cpu", (4,))
        shard = distribute_tensor(torch.ones(3), mesh, [Shard(0)], src_data_rank=None)
        assert shard.to_local().numel() == 0
        full.language_model.spare = torch.nn.Parameter(shard)
        full.language_model.spare.grad = shard
        with pytest.raises(UserError, match=r"e.g. model.language_model.spare"):
            check_first_gradients(full)
        monkeypatch.setattr(dist, "all_reduce", lambda found, _: found[:, 0].fill_(1))
        assert check_first_gradients(full) and spare.grad is None
    finally:
        dist.destroy_process_group()


def test_training_stops_at_the_first_step(base_folder, data):
    class Blind(GradientAscent):
        """Loses what reaches one layer."""

        def before_training(self, run):
            next(iter(adapters(run.mllm).values())).register_hook(torch.zeros_like)

    trainer = Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    with pytest.raises(UserError, match=r"no gradient reaches 1 of 21 adapters, e.g. model.language_model.layers.0"):
        trainer.fit(Unlearn(Blind(), str(base_folder), Lora(r=2)), datamodule=data)


def test_what_cannot_be_judged_is_let_be_after_a_few_steps(monkeypatch):
    """A projector that no question needs must not cost every step a pass over all gradients."""
    looks = []
    for judged, expected in (([False] * 50, base.LOOKS), ([False, True, False], 2)):
        answers = iter(judged)
        monkeypatch.setattr(base, "check_first_gradients", lambda *_: looks.append(1) or next(answers))  # noqa: B023
        looks.clear()
        stage = base.Stage(lr=1e-3)
        stage.mllm = SimpleNamespace()
        stage.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        for _ in judged:
            stage.on_before_optimizer_step(None)
        assert len(looks) == expected


def test_folder_fingerprint_follows_the_bytes(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    first = folder_fingerprint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1")
    second = folder_fingerprint(tmp_path)
    (tmp_path / "README.md").write_text("no matter")
    assert first != second == folder_fingerprint(tmp_path)
    assert folder_fingerprint("owner/name") is None
    file = tmp_path / "model.safetensors"
    assert identify_weights("a name", file)["fingerprint"] == folder_fingerprint(file) != second
    nothing = str(tmp_path / "nothing")
    assert identify_weights(nothing) == {"source": nothing, "commit": None, "fingerprint": None}


def test_revision_of_a_folder_is_an_error(base_folder):
    with pytest.raises(UserError, match="revision=v2: only a hub id has revisions"):
        MLLM.load(base_folder, Weights(revision="v2"))


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(base_folder, tmp_path):
    """A cache with nobody/tiny, laid out as the hub client lays it out; runs code that sees it, without any network."""
    model = tmp_path / "hub/models--nobody--tiny"
    (model / "refs").mkdir(parents=True)
    (model / "refs/v1").write_text(COMMIT)
    (model / "snapshots").mkdir()
    (model / "snapshots" / COMMIT).symlink_to(base_folder)

    def said(code):
        def in_hub():
            constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = str(tmp_path / "hub"), True
            exec(code, {})

        out, err = tmp_path / "out", tmp_path / "err"
        assert forked.wait(forked.start(in_hub, (out, err))) == 0, err.read_text()
        return out.read_text().split()

    said.model = model
    return said


def test_commit_of_a_hub_id_is_known(hub):
    (hub.model / "refs/main").write_text(COMMIT)
    code = "from viker_lightning.models import MLLM, Weights, identify_weights as of; "
    code += "print(MLLM.load('nobody/tiny', Weights(revision='v1')).commit); "
    assert hub(code + "print(*of('nobody/tiny').values())") == [COMMIT, "nobody/tiny", COMMIT, "None"]


ADAPT = """
import json
from pathlib import Path
from peft import PeftConfig, PeftModel
from transformers import AutoModelForImageTextToText
from viker_lightning.models import MLLM, Lora, Weights, load_adapted

for model, revision in (("nobody/tiny", "v1"), ({snapshot!r}, None)):
    mllm = MLLM.load(model, Weights(revision=revision))
    mllm.adapt(Lora(r=2))
    mllm.save_adapter({adapter!r})
    Path({branch!r}).unlink(missing_ok=True)
    print(json.loads(Path({adapter!r}, "adapter_config.json").read_text())["revision"])
    print(load_adapted({adapter!r}).commit)
    made = PeftConfig.from_pretrained({adapter!r})
    base = AutoModelForImageTextToText.from_pretrained(made.base_model_name_or_path, revision=made.revision)
    print(type(PeftModel.from_pretrained(base, {adapter!r})).__name__)
"""


def test_an_adapter_knows_the_commit_of_its_model(hub, tmp_path):
    """Not the branch, which moves or goes; a folder has no revision, be it one in the hub's cache."""
    snapshot, branch = str(hub.model / "snapshots" / COMMIT), str(hub.model / "refs/v1")
    said = hub(ADAPT.format(adapter=str(tmp_path / "adapter"), snapshot=snapshot, branch=branch))
    assert said == [COMMIT, COMMIT, "PeftModel", "None", COMMIT, "PeftModel"]


def test_a_target_that_names_no_layer_is_an_error(base_folder):
    with pytest.raises(UserError, match=r"no layer of the language model is called out_proj; name some of down_proj, "):
        MLLM.load(base_folder).adapt(Lora(targets=("q_proj", "out_proj")))  # the tower has one


@pytest.mark.parametrize("odd", [{"r": 0}, {"alpha": 0}, {"dropout": 1.0}, {"targets": ()}])
def test_odd_settings_are_named(odd):
    ((name, value),) = odd.items()
    with pytest.raises(UserError, match=rf"model.lora: .*{name}={'.*' if name == 'targets' else value}"):
        Lora(**odd)


@pytest.fixture
def saved(mllm, tmp_path):
    """A saved adapter; with changed settings, a copy that says so."""
    mllm.save_adapter(tmp_path / "adapter")
    setting = json.loads((tmp_path / "adapter/adapter_config.json").read_text())

    def with_(**changed):
        folder = tmp_path / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "adapter", folder)
        (folder / "adapter_config.json").write_text(json.dumps(setting | changed))
        return folder

    return with_


def put_on(base, adapter, lora=None):
    model = MLLM.load(base)
    model.adapt(lora or Lora(), adapter)
    return model.eval()


@pytest.mark.parametrize("setting", [{"use_rslora": True}, {"alpha_pattern": {"q_proj": 64, "down_proj": 2}}])
def test_a_saved_adapter_keeps_its_own_scale(saved, base_folder, groups, setting):
    """One to start from says what the same one says that is only evaluated."""

    def told(model):
        with torch.no_grad():
            return model.answer_tokens(model.pack(groups)).logits

    ours = put_on(base_folder, saved(**setting))
    wanted = told(load_adapted(saved(**setting), base=str(base_folder)).eval())
    torch.testing.assert_close(told(ours), wanted, atol=0, rtol=0)
    assert (told(put_on(base_folder, saved())) - wanted).abs().max() > 1e-2
    assert any(p.requires_grad for p in adapters(ours).values()), "it goes on being trained"


def test_a_saved_adapter_keeps_its_own_ranks(base_folder, tmp_path):
    base = MLLM.load(base_folder)
    targets = r"model\.language_model\..*\.(q_proj|v_proj)"
    made = get_peft_model(
        base.model, LoraConfig(r=8, lora_alpha=16, target_modules=targets, rank_pattern={"q_proj": 2})
    )
    made.save_pretrained(tmp_path)
    found = put_on(base_folder, tmp_path, Lora(targets=("q_proj", "v_proj"), dropout=0.25)).model
    layer = found.base_model.model.model.language_model.layers[0].self_attn
    assert (layer.q_proj.r, layer.v_proj.r) == ({"default": 2}, {"default": 8})
    assert layer.q_proj.lora_dropout["default"].p == 0.25, "dropout is the run's"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"r": 4}, "made with r=4, but this run has 8"),
        ({"target_modules": []}, "names no layer"),
        ({"target_modules": None}, "names no layer"),
        ({"target_modules": ["nothing"]}, "not found in the base model"),
        ({"target_modules": "("}, "unterminated subpattern"),
        ({"target_modules": ["q_proj"]}, r"vision_tower.*which is not one of model.lora.targets"),
        ({"target_modules": r".*language_model.*\.q_proj"}, r"does not adapt .*, which is one of model.lora.targets"),
        ({"rank_pattern": {"q_proj": 4}}, r"q_proj.lora_A.weight has shape \[8, 160\], this model needs \[4, 160\]"),
        ({"bias": "all"}, "has bias=all, but this run trains LoRA layers alone"),
        ({"modules_to_save": ["multi_modal_projector"]}, "has modules_to_save=.* trains LoRA layers alone"),
        ({"init_lora_weights": "pissa"}, "has init_lora_weights=pissa, but"),
        ({"alpha_pattern": [1]}, "adapter_config.json of"),
        ({"use_dora": True}, "missing adapter keys"),
        ({"peft_type": "IA3"}, "found a IA3 adapter, expected LORA"),
    ],
)
def test_an_adapter_that_does_not_fit_is_named(saved, base_folder, setting, said):
    with pytest.raises(UserError, match=said) as error:
        put_on(base_folder, saved(**setting))
    assert "\n" not in str(error.value) and str(saved(**setting)) in str(error.value)


def test_an_adapter_of_another_base_is_named(saved, base_folder, tmp_path, caplog):
    """By the weights where both are there; where they are not, a line says that it cannot be told."""
    moved, other = tmp_path / "moved", tmp_path / "other"
    for folder in (moved, other):
        shutil.copytree(base_folder, folder)
    tensors = load_file(other / "model.safetensors")
    next(iter(tensors.values())).add_(1)
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    put_on(moved, saved())
    with pytest.raises(
        UserError, match=rf"model.adapter: .* was made on {base_folder}, but this run has {other}; give"
    ):
        put_on(other, saved())
    assert not caplog.messages
    put_on(other, saved(base_model_name_or_path="/gone/model"))
    assert "made on /gone/model" in caplog.messages[-1] and "cannot be told" in caplog.messages[-1]
    ours, theirs = "0" * 40, "1" * 40
    hub = SimpleNamespace(name_or_path="nobody/tiny")
    _check_base(saved(base_model_name_or_path="nobody/tiny", revision="main"), hub, ours)
    _check_base(saved(base_model_name_or_path="nobody/tiny", revision=ours), hub, ours)
    with pytest.raises(UserError, match=rf"made on nobody/tiny at {theirs}, but this run has nobody/tiny at {ours}"):
        _check_base(saved(base_model_name_or_path="nobody/tiny", revision=theirs), hub, ours)
    with pytest.raises(UserError, match="made on nobody/large, but this run has nobody/tiny"):
        _check_base(saved(base_model_name_or_path="nobody/large"), hub, ours)


def test_an_adapter_on_the_vision_tower_is_named(base_folder, tmp_path):
    """Features of pictures are kept: they must not depend on whether the adapter is on."""
    base = MLLM.load(base_folder)
    get_peft_model(base.model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"adapts model\.vision_tower.*outside the language model; merge it"):
        load_adapted(tmp_path, base=str(base_folder))
