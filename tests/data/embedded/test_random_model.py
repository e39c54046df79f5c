"""Random models in published shapes: the project's own loader takes them, and no more than a shard is in memory."""

import json

import pytest
import torch

from viker_lightning.data.embedded import random_model
from viker_lightning.data.embedded.__main__ import main
from viker_lightning.data.embedded.random_model import LIKE, write_random_model
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, Weights

NARROW = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 4}
TOWERS = {
    "llava-1.5-7b": {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 3},
    "qwen2-vl-7b": {"embed_dim": 32, "num_heads": 2, "depth": 2, "hidden_size": 64},
}
ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}


@pytest.mark.parametrize("like", LIKE)
def test_narrow_ones_load_with_all_their_words(like, tmp_path, monkeypatch):
    kind, make, text = LIKE[like]
    rope = {"rope_parameters": ROPE} if "rope_parameters" in text else {}
    monkeypatch.setitem(LIKE, like, (kind, make, text | NARROW | rope))
    monkeypatch.setattr(random_model, "TOWER", TOWERS[like])
    write_random_model(like, tmp_path / "model", layers=2, shard=2**22)
    index = json.loads((tmp_path / "model/model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "model").glob("*.safetensors"))
    assert {*index["weight_map"].values()} == {file.name for file in files} and len(files) > 2
    assert index["metadata"]["total_size"] == pytest.approx(sum(file.stat().st_size for file in files), rel=0.01)
    mllm = MLLM.load(tmp_path / "model", Weights("bfloat16"))
    assert mllm.packs and len(mllm.language_model.layers) == 2
    assert mllm.head.weight.shape == ((152064 if "qwen" in like else 32064), 64)
    assert mllm.head.weight.float().std().item() == pytest.approx(0.02, rel=0.02)
    assert torch.equal(mllm.language_model.norm.weight, torch.ones(64, dtype=torch.bfloat16))
    assert not torch.equal(mllm.head.weight, mllm.language_model.embed_tokens.weight)


@pytest.mark.parametrize(("like", "weights"), [("llava-1.5-7b", 7.06e9), ("qwen2-vl-7b", 8.29e9)])
def test_whole_ones_have_as_many_weights_as_those_published(like, weights):
    kind, make, text = LIKE[like]
    with torch.device("meta"):
        model = kind._from_config(make(dict(text))[0])
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(weights, rel=0.001)


@pytest.mark.slow
def test_one_of_real_width_is_written_and_loaded(tmp_path, capsys):
    main(["random", "--like=llava-1.5-7b", "--layers=1", f"--out={tmp_path / 'model'}"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "model")
    mllm = MLLM.load(tmp_path / "model", Weights("bfloat16"))
    assert (mllm.head.weight.shape, len(mllm.language_model.layers)) == ((32064, 4096), 1)


def test_what_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for layers, folder, named in ((0, tmp_path / "model", "--layers: found 0"), (1, tmp_path, "is no model folder")):
        with pytest.raises(UserError, match=named):
            write_random_model("llava-1.5-7b", folder, layers)
    assert (tmp_path / "mine.txt").is_file()
