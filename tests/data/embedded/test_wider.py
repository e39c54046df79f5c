from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from support.commands import ROOT
from viker_lightning.data import image_files
from viker_lightning.data.datasets.mllmu import MLLMU
from viker_lightning.data.embedded import wider
from viker_lightning.data.embedded.base_model import base_model
from viker_lightning.data.embedded.llava import pictures_of_nobody
from viker_lightning.training.finetune import base_weights
from viker_lightning.training.vanilla import kept_in


@pytest.fixture(scope="module")
def base() -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration.from_pretrained(base_model()).eval()


@pytest.fixture(scope="module")
def wide(base: LlavaForConditionalGeneration) -> LlavaForConditionalGeneration:
    return wider.widen(base, wider.TIMES)


@pytest.fixture(scope="module")
def asked() -> dict[str, torch.Tensor]:
    """Two pictures with a question each, padded."""
    processor = AutoProcessor.from_pretrained(base_model(), padding_side="left")
    texts = ["USER: <image>\nWhat is the name of this person?\nASSISTANT:", "USER: <image>\nJob?\nASSISTANT:"]
    images = [image_files.pixels(png) for png in pictures_of_nobody(1)[:2]]
    return dict(processor(images=images, text=texts, padding=True, return_tensors="pt"))


def test_it_answers_as_before(
    base: LlavaForConditionalGeneration, wide: LlavaForConditionalGeneration, asked: dict[str, torch.Tensor]
) -> None:
    with torch.no_grad():
        torch.testing.assert_close(wide(**asked).logits, base(**asked).logits, atol=2e-4, rtol=2e-4)
    assert 15e6 < wide.num_parameters() < 17e6 and base.num_parameters() < 2e6
    assert wide.config.text_config.head_dim == base.config.text_config.head_dim
    assert wide.lm_head.weight is wide.get_input_embeddings().weight


def test_copies_part_in_two_steps(base: LlavaForConditionalGeneration, asked: dict[str, torch.Tensor]) -> None:
    """At first the last layer's copies are still alike: the output layer reads them alike until the embeddings part."""
    wide = wider.widen(base, wider.TIMES)
    step = torch.optim.SGD(wide.parameters(), 0.01)
    for _ in range(2):
        step.zero_grad()
        wide(**asked, labels=asked["input_ids"]).loss.backward()
        step.step()
    for name, weight in wide.named_parameters():
        if "vision_tower" in name:
            continue
        found = weight.grad
        assert found is not None, name
        size = found.shape[-1 if "embed_tokens" in name else 0] // wider.TIMES
        one, other = (found.narrow(-1 if "embed_tokens" in name else 0, at * size, size) for at in (0, 1))
        assert (one - other).norm() > 1e-3 * one.norm() > 0, f"{name}: two copies have one gradient"


def test_any_width(base: LlavaForConditionalGeneration, asked: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        same, thrice = (wider.widen(base, times)(**asked).logits for times in (1, 3))
        torch.testing.assert_close(same, base(**asked).logits)
        torch.testing.assert_close(thrice, same, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_other_llamas(tied: bool) -> None:
    """Biases, fewer heads for keys than for queries, an output layer of its own; the model given stays as it is."""
    text = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=tied,
    )
    tower = CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=tower, text_config=text, image_token_index=39, tie_word_embeddings=tied)
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)  # biases and norms of their own
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    random, tokens = torch.get_rng_state(), torch.arange(12)[None]
    wide = wider.widen(model, 3)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(wide(input_ids=tokens).logits, model(input_ids=tokens).logits, atol=1e-4, rtol=1e-4)


def test_a_run_begins_with_it(data: MLLMU, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path))
    folder = Path(base_weights("wider", data))
    assert folder == wider.wider_model() and folder.parent.parent == tmp_path
    weights = (folder / "model.safetensors").read_bytes()
    assert json.loads((folder / "config.json").read_text())["text_config"]["hidden_size"] == 640
    (folder / "model.safetensors").unlink()
    assert Path(base_weights("wider", data)) == folder
    assert (folder / "model.safetensors").read_bytes() == weights, "made again, the very same"


def test_another_wider_model_has_other_vanilla_models(data: MLLMU, monkeypatch: pytest.MonkeyPatch) -> None:
    config = str(ROOT / "configs/wider/vanilla.yaml")
    found = kept_in(config, data)
    assert kept_in(config, data) == found
    monkeypatch.setattr(wider, "TIMES", 2)
    assert kept_in(config, data) != found
