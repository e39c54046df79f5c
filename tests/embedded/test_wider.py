from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from viker_lightning import image_files
from viker_lightning.datasets.mllmu import MLLMU
from viker_lightning.embedded import wider
from viker_lightning.embedded.base_model import base_model
from viker_lightning.embedded.llava import pictures_of_nobody
from viker_lightning.training.finetune import base_weights


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


def test_a_run_begins_with_it(data: MLLMU, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path))
    folder = Path(base_weights("wider", data))
    assert folder == wider.wider_model() and folder.parent.parent == tmp_path
    weights = (folder / "model.safetensors").read_bytes()
    assert json.loads((folder / "config.json").read_text())["text_config"]["hidden_size"] == 640
    (folder / "model.safetensors").unlink()
    assert Path(base_weights("wider", data)) == folder
    assert (folder / "model.safetensors").read_bytes() == weights, "made again, the very same"
