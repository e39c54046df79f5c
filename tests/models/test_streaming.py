"""Merging weight by weight writes the very files that merging the whole model in memory writes."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from support.families import FAMILIES, random_model
from support.marks import quick
from support.weights import randomise_lora
from viker_lightning.models import MLLM, Lora, Weights, merging, write_merged
from viker_lightning.storage import shards

SETTINGS = {
    "plain": {},
    "rslora": {"use_rslora": True, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"v_proj": 7}},
    "dora": {"use_dora": True},
}


def made(tmp_path, name="llava", dtype="float32", projector=False, **setting):
    """A base model on disk, and an adapter of it with visible weights."""
    mllm = random_model(name)
    mllm.model.to(getattr(torch, dtype))
    mllm.save(tmp_path / "base")
    mllm = MLLM.load(tmp_path / "base")
    if setting:
        targets = r".*language_model.*(q_proj|v_proj|down_proj)"
        mllm.model = get_peft_model(mllm.model, LoraConfig(r=8, lora_alpha=16, target_modules=targets, **setting))
    else:
        mllm.adapt(Lora(), projector=projector)
    randomise_lora(mllm)
    for parameter_name, p in mllm.named_parameters():
        if "modules_to_save" in parameter_name:
            p.data += torch.randn_like(p) * 0.01
    mllm.save_adapter(tmp_path / "adapter")


def both(tmp_path, monkeypatch, dtype="float32", streams=True):
    """Merges in both ways and compares every file."""
    base, found = str(tmp_path / "base"), []
    stream = merging.stream_merged

    def noting(*given):
        found.append(stream(*given))
        return found[-1]

    monkeypatch.setattr(merging, "stream_merged", noting)
    write_merged(tmp_path / "adapter", tmp_path / "streamed", Weights(dtype), base)
    assert (found[0] is not None) is streams
    monkeypatch.setattr(merging, "stream_merged", lambda *given: None)
    write_merged(tmp_path / "adapter", tmp_path / "whole", Weights(dtype), base)
    wanted = {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()}
    assert {file.name: file.read_bytes() for file in (tmp_path / "streamed").iterdir()} == wanted
    mllm, after = MLLM.load(base), MLLM.load(tmp_path / "streamed")
    assert not torch.equal(
        mllm.language_model.layers[0].self_attn.q_proj.weight, after.language_model.layers[0].self_attn.q_proj.weight
    )


@pytest.mark.parametrize("name", quick(FAMILIES, ["llava", "qwen2_vl"]))
def test_files_are_those_of_the_whole_model(name, tmp_path, monkeypatch):
    made(tmp_path, name)
    both(tmp_path, monkeypatch, "bfloat16")


@pytest.mark.parametrize(
    ("read", "written"), [("float32", "float32"), ("bfloat16", "float16"), ("float16", "bfloat16")]
)
def test_types(read, written, tmp_path, monkeypatch):
    made(tmp_path, dtype=read)
    both(tmp_path, monkeypatch, written)


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_an_adapter(setting, tmp_path, monkeypatch):
    """Those that change more than a matrix are merged in memory."""
    made(tmp_path, **SETTINGS[setting] or {"use_rslora": False})
    both(tmp_path, monkeypatch, streams=setting in ("plain", "rslora"))


def test_a_trained_projector(tmp_path, monkeypatch):
    made(tmp_path, projector=True)
    both(tmp_path, monkeypatch, "bfloat16")


def test_many_files_in_many_files_out(tmp_path, monkeypatch):
    made(tmp_path)
    base = MLLM.load(tmp_path / "base")
    base.model.save_pretrained(tmp_path / "base", max_shard_size="50KB")
    (tmp_path / "base/model.safetensors").unlink()
    both(tmp_path, monkeypatch)
    monkeypatch.undo()
    monkeypatch.setattr(shards.Shards.__init__, "__defaults__", (2**16,))
    write_merged(tmp_path / "adapter", tmp_path / "many", base=str(tmp_path / "base"))
    index = json.loads((tmp_path / "many/model.safetensors.index.json").read_text())
    assert len({*index["weight_map"].values()}) > 2
    many, one = (MLLM.load(tmp_path / name).base.state_dict() for name in ("many", "streamed"))
    assert many.keys() == one.keys() and all(torch.equal(many[name], one[name]) for name in one)


def test_other_names_in_the_files_are_left_to_transformers(tmp_path, monkeypatch):
    """A prefix that it takes off as it reads."""
    made(tmp_path)
    weights = load_file(tmp_path / "base/model.safetensors")
    save_file(
        {f"model.{name}": w for name, w in weights.items()}, tmp_path / "base/model.safetensors", {"format": "pt"}
    )
    assert merging.stream_merged(tmp_path / "adapter", str(tmp_path / "base"), Weights(), "float32", tmp_path) is None
