"""QLoRA: the language model in fewer bits, everything else as it is. What computes needs bitsandbytes (extra quant)."""

import importlib.util
import json

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from transformers import LlamaConfig, LlavaForConditionalGeneration

from support import families
from support.plain_route import plain_logits
from viker_lightning.errors import UserError
from viker_lightning.methods import ViKeR
from viker_lightning.models import MLLM, Lora, Weights, check_first_gradients, loading
from viker_lightning.models.families import Llava
from viker_lightning.training import Finetune, Unlearn

installed = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="extra quant is not installed")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model wide enough for blocks of 64 weights, and its folder."""
    torch.manual_seed(0)
    text = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2)
    model = families.llava(text).eval()
    with torch.no_grad():
        for p in model.language_model.parameters():
            if p.ndim == 2:
                p.normal_(std=0.1)
    folder = tmp_path_factory.mktemp("whole")
    model.save(folder)
    return model, folder


def test_settings_name_what_is_kept_whole(whole, monkeypatch):
    model, _ = whole
    monkeypatch.setattr(loading, "find_spec", lambda name: True)
    nf4 = loading.quantization("nf4", model.base.config, Llava(), LlavaForConditionalGeneration, torch.bfloat16)
    assert (nf4.load_in_4bit, nf4.bnb_4bit_quant_type, nf4.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert nf4.bnb_4bit_compute_dtype == torch.bfloat16
    fp4 = loading.quantization("fp4", model.base.config, Llava(), LlavaForConditionalGeneration, torch.bfloat16)
    assert (fp4.load_in_4bit, fp4.bnb_4bit_quant_type, fp4.bnb_4bit_use_double_quant) == (True, "fp4", False)
    int8 = loading.quantization("int8", model.base.config, Llava(), LlavaForConditionalGeneration, torch.bfloat16)
    assert int8.load_in_8bit
    linear = {name for name, module in model.base.named_modules() if isinstance(module, nn.Linear)}
    inside = {name for name in linear if name.startswith("model.language_model.")}
    assert set(nf4.llm_int8_skip_modules) == set(int8.llm_int8_skip_modules) == linear - inside
    assert set(fp4.llm_int8_skip_modules) == linear - inside
    assert "lm_head" in linear - inside and len(inside) == 14


def test_missing_bitsandbytes_is_one_line(whole, monkeypatch):
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"quantize=nf4: bitsandbytes is not installed; pip install -e '\.\[quant\]'[^\n]*$"
    ):
        MLLM.load(whole[1], Weights(quantize="nf4"))


def test_quantised_weights_cannot_be_trained():
    with pytest.raises(UserError, match="quantize=int8: quantised weights cannot be trained themselves; set lora"):
        Finetune("mini", lora=None, quantize="int8")


def distance(wanted, found):
    return (found - wanted).norm() / wanted.norm()


@installed
@pytest.mark.parametrize("quantize", ["nf4", "fp4", "int8"])
def test_only_the_language_model_is_quantised(whole, groups, tmp_path, quantize):
    model, folder = whole
    small = MLLM.load(folder, Weights(quantize=quantize)).eval()
    assert small.quantized and not model.quantized
    kinds = {n: type(m) for n, m in small.base.named_modules() if isinstance(m, nn.Linear)}
    assert all((kind is not nn.Linear) == n.startswith("model.language_model.") for n, kind in kinds.items())
    mine, other = (torch.stack(m.vision.features(m.base, [g.image for g in groups])) for m in (small, model))
    torch.testing.assert_close(mine, other)

    def logits(mllm):
        with torch.no_grad():
            return mllm.answer_tokens(mllm.pack(groups)).logits

    exact, base = logits(model), logits(small)
    assert 1e-3 < distance(exact, base) < (0.1 if quantize == "int8" else 0.5)
    with torch.no_grad():
        assert distance(base, plain_logits(small, groups)[0]) < 0.01
    small.adapt(Lora(r=2))
    small.train()
    small.answer_tokens(small.pack(groups)).log_probs.mean().backward()
    assert check_first_gradients(small)
    assert all("lora_" in n for n, p in small.named_parameters() if p.requires_grad)
    small.eval()
    with torch.no_grad():
        for name, p in small.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.2)
    after = logits(small)
    assert distance(base, after) > 0.05
    with small.frozen():
        assert distance(base, logits(small)) < 1e-5
    small.save_adapter(tmp_path)
    again = MLLM.load(folder, Weights(quantize=quantize)).eval()
    again.adapt(Lora(r=2), tmp_path)
    assert distance(after, logits(again)) < 1e-5


@installed
@pytest.mark.slow
def test_stages_run_on_quantised_weights(whole, data, tmp_path):
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_steps": 2}
    taught = Finetune(str(whole[1]), Lora(r=2), lr=1e-2, quantize="nf4")
    data.stage, stage = "vanilla", data.stage
    try:
        Trainer(accelerator="cpu", default_root_dir=tmp_path, **options).fit(taught, datamodule=data)
    finally:
        data.stage = stage
    taught.save_weights(tmp_path)
    settings = json.loads((tmp_path / "model/config.json").read_text())
    assert "quantization_config" not in settings
    merged = MLLM.load(tmp_path / "model")
    moved = [
        n for n, p in merged.base.named_parameters() if not torch.equal(p, MLLM.load(whole[1]).base.get_parameter(n))
    ]
    assert len(moved) == 14 and all("language_model" in n for n in moved)
    module = Unlearn(ViKeR(k=2), str(tmp_path / "model"), Lora(r=2), lr=1e-3, quantize="nf4")
    trainer = Trainer(accelerator="cpu", **options)
    trainer.fit(module, datamodule=data)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
