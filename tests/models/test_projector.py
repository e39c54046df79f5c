"""A projector that is trained beside LoRA: in fine-tuning only, saved with the adapter, merged with it."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn

from support.marks import bf16_attention
from viker_lightning.data.datasets.mllmu import MLLMU
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, Lora, Weights, load_adapted, write_merged
from viker_lightning.models.adapter import projector_paths
from viker_lightning.training import Finetune

CI = "mini/ci"


def projector(model):
    return model.base.model.multi_modal_projector


@pytest.fixture
def both(base_folder):
    """New adapters and a projector, all of which are moved away from where they began."""
    seed_everything(0, verbose=False)
    model = MLLM.load(base_folder)
    model.before = model.fingerprint
    model.adapt(Lora(r=2), projector=True)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad and "lora_A" not in name:
                p.add_(0.05 * torch.randn_like(p))
    return model


def logits(model, groups):
    return model.answer_tokens(model.pack(groups)).logits


def test_projector_and_adapters_are_trained_and_nothing_else(both, groups):
    trained = {name for name, p in both.named_parameters() if p.requires_grad}
    beside = {name for name in trained if "multi_modal_projector" in name}
    assert len(beside) == 4 and all("lora_" in name and "language_model" in name for name in trained - beside)
    (-both.answer_tokens(both.pack(groups)).log_probs.mean()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in both.parameters() if p.requires_grad)


def test_frozen_pass_sees_the_former_projector(both, groups, base_folder):
    with both.frozen():
        torch.testing.assert_close(logits(both, groups), logits(MLLM.load(base_folder), groups))
    assert (logits(both, groups) - logits(MLLM.load(base_folder), groups)).abs().max() > 0.01
    assert both.fingerprint == both.before


def test_saved_and_merged_weights_say_the_same(both, groups, base_folder, tmp_path):
    wanted = logits(both, groups)
    both.save_adapter(tmp_path / "adapter")
    torch.testing.assert_close(logits(load_adapted(tmp_path / "adapter", base=str(base_folder)), groups), wanted)
    write_merged(tmp_path / "adapter", tmp_path / "merged", base=str(base_folder))
    torch.testing.assert_close(logits(MLLM.load(tmp_path / "merged"), groups), wanted, rtol=1e-4, atol=1e-4)


def test_unlearning_takes_no_adapter_that_holds_a_projector(both, base_folder, tmp_path):
    both.save_adapter(tmp_path)
    with pytest.raises(UserError, match=r"has modules_to_save=.* trains LoRA layers alone"):
        MLLM.load(base_folder).adapt(Lora(r=2), tmp_path)


@bf16_attention
def test_projector_is_in_fp32_beside_a_model_in_bf16(base_folder, groups):
    model = MLLM.load(base_folder, Weights("bfloat16"))
    model.adapt(Lora(r=2), projector=True)
    model._apply(lambda p: p.float() if p.requires_grad else p)  # as every stage does
    (features,) = model.vision.features(model.base, [groups[0].image])
    assert features.dtype == torch.bfloat16
    (-model.answer_tokens(model.pack(groups)).log_probs.mean()).backward()
    grads = {p.grad.dtype for p in projector(model).parameters() if p.requires_grad}
    assert grads == {torch.float32}


def test_fine_tuning_moves_the_projector_and_leaves_the_tower(base_folder, tmp_path, cache):
    data = MLLMU(CI, stage="vanilla", batch_size=4, questions_per_image=2)
    module = Finetune(str(base_folder), Lora(r=2), train_projector=True, lr=1e-2, warmup_steps=0)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_steps=2, **quiet)
    trainer.fit(module, data)
    module.save_weights(tmp_path)
    base, run = (MLLM.load(folder).state_dict() for folder in (base_folder, tmp_path / "model"))
    moved = {name for name in base if not torch.equal(base[name], run[name])}
    assert sum("multi_modal_projector" in name for name in moved) == 4
    assert not any("vision_tower" in name or "embed_tokens" in name for name in moved)
    assert sum("layers" in name for name in moved) == 7 * 3


def test_a_projector_in_parts_is_found_and_a_missing_one_is_named():
    model, parts = nn.Module(), nn.Module()
    model.projector = parts.projector = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    parts.newline = nn.Parameter(torch.zeros(2))
    assert projector_paths(model, parts) == projector_paths(model, model.projector) == ["projector"]
    with pytest.raises(UserError, match=r"train_projector: Module has no projector apart from its vision tower"):
        projector_paths(model, None)
