"""A step in parts, in other precisions, with checkpointing: the same training."""

import logging

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from support.marks import bf16_attention
from support.weights import random_vanilla
from viker_lightning.errors import UserError
from viker_lightning.methods import NPO, GradientDifference, KLMinimization, ViKeR
from viker_lightning.models import MLLM, Lora, split_to_budget
from viker_lightning.training import Unlearn
from viker_lightning.training.engine import Engine

SMALL = Engine(max_sequence_tokens=140, max_tokens=200)


@pytest.fixture(scope="module")
def vanilla(base_folder, tmp_path_factory):
    return str(random_vanilla(base_folder, tmp_path_factory.mktemp("vanilla")))


def trained(vanilla, data, method, engine=Engine(), steps=2, **options):  # noqa: B008
    """The module after a few steps."""
    seed_everything(0, verbose=False)
    module = Unlearn(method, vanilla, Lora(r=4, alpha=8), lr=1e-3, engine=engine)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )
    data.batches_per_step = 1
    trainer.fit(module, datamodule=data)
    return module


def weights(module):
    return torch.cat([p.detach().float().flatten() for p in module.parameters() if p.requires_grad])


@pytest.mark.extended
@pytest.mark.parametrize(
    "method",
    [
        lambda: ViKeR(lam=2.0, k=2, retain_weight=1.0),
        lambda: ViKeR(lam=2.0, k=2, direction="reverse", per="question"),
        lambda: KLMinimization(),
        lambda: NPO(retain_weight=0.5),
    ],
)
def test_a_step_in_parts_is_one_step(vanilla, data, method, monkeypatch):
    whole = trained(vanilla, data, method())
    parts = []
    loss_terms = Unlearn.loss_terms
    monkeypatch.setattr(Unlearn, "loss_terms", lambda self, *a: parts.append(a) or loss_terms(self, *a))
    small = trained(vanilla, data, method(), SMALL)
    assert len(parts) > 4
    start = weights(trained(vanilla, data, method(), steps=0))
    moved = weights(whole) - start
    assert moved.norm() > 1e-3
    assert (weights(small) - weights(whole)).norm() / moved.norm() < 1e-3
    for name, value in whole.trainer.callback_metrics.items():
        torch.testing.assert_close(small.trainer.callback_metrics[name], value, rtol=1e-3, atol=1e-4)


def test_gradient_of_parts_equals_gradient_of_the_whole(vanilla, data):
    """Before any optimizer touches it, with parts of very different sizes."""
    gradients = []
    for engine in (Engine(), SMALL):
        module = Unlearn(GradientDifference(), vanilla, Lora(r=4), engine=engine)
        module.on_before_optimizer_step = lambda optimizer, module=module: gradients.append(
            torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
        )
        seed_everything(0, verbose=False)
        data.batches_per_step = 1
        Trainer(
            accelerator="cpu",
            max_steps=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module, datamodule=data)
    assert (gradients[0] - gradients[1]).norm() / gradients[0].norm() < 1e-5


def test_accumulated_batches_are_one_batch(vanilla, data):
    """Four batches accumulated give the gradient of one batch of four times the size, token for token."""
    big = type(data)(data.root, batch_size=4 * data.batch_size, questions_per_image=data.questions_per_image)
    big.setup()
    whole = trained(vanilla, big, GradientDifference(), steps=1)
    accumulated = trained(vanilla, data, GradientDifference(), steps=1, accumulate_grad_batches=4)
    data.batches_per_step = 1
    start = weights(trained(vanilla, data, GradientDifference(), steps=0))
    assert (weights(whole) - weights(accumulated)).norm() / (weights(whole) - start).norm() < 1e-3


@pytest.mark.extended
@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
def test_every_lora_b_moves(vanilla, data, precision):
    """With gradient checkpointing, in every precision, and adapters stay in fp32."""
    engine = Engine(gradient_checkpointing=True)
    module = trained(vanilla, data, ViKeR(lam=1.0, k=2, retain_weight=1.0), engine, steps=3, precision=precision)
    lora = {n: p for n, p in module.named_parameters() if "lora_B" in n}
    assert len(lora) == 7 * 3
    assert all(p.dtype == torch.float32 and p.abs().max() > 0 for p in lora.values())
    assert torch.isfinite(module.trainer.callback_metrics["train/loss"])


def test_checkpointing_changes_nothing(vanilla, data):
    kept = trained(vanilla, data, ViKeR(k=2), steps=2)
    computed = trained(vanilla, data, ViKeR(k=2), Engine(gradient_checkpointing=True), steps=2)
    assert (weights(kept) - weights(computed)).norm() / weights(kept).norm() < 1e-5


@bf16_attention
def test_statistics_are_fp32_in_bf16(vanilla, data):
    module = trained(vanilla, data, ViKeR(k=2), Engine(references="memory"), steps=1, precision="bf16-true")
    batch = module.mllm.pack(data.evaluation_groups()[:1])
    tokens = module.mllm.answer_tokens(batch)
    assert tokens.hidden.dtype == torch.bfloat16
    assert tokens.logits.dtype == tokens.log_probs.dtype == torch.float32
    reference = module.ideal.reference(batch)
    assert {reference.vector.dtype, reference.entropy.dtype, reference.log_prob.dtype} == {torch.float32}


@pytest.mark.extended
@pytest.mark.parametrize("options", [{"features": "off", "references": "off"}, {"features": "disk"}])
def test_what_is_kept_changes_nothing(vanilla, data, options):
    method = {"lam": 2.0, "k": 2, "retain_weight": 1.0}
    kept = trained(vanilla, data, ViKeR(**method))
    other = trained(vanilla, data, ViKeR(**method), Engine(**options))
    assert (weights(kept) - weights(other)).norm() / weights(kept).norm() < 1e-5


def test_a_trained_output_embedding_is_refused_and_gone_round(vanilla, data, caplog):
    """The store says why it cannot serve; the run takes full distributions instead."""
    caplog.set_level(logging.INFO, "viker_lightning")
    reduced = trained(vanilla, data, ViKeR(lam=2.0, k=2))

    class Trained(Unlearn):
        def on_train_start(self):
            self.mllm.head.weight.requires_grad_(True)  # after the optimizer was made: it never moves
            super().on_train_start()

    seed_everything(0, verbose=False)
    module = Trained(ViKeR(lam=2.0, k=2), vanilla, Lora(r=4, alpha=8), lr=1e-3)
    Trainer(accelerator="cpu", max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False).fit(
        module, datamodule=data
    )
    assert "the output embedding is trained" in caplog.text
    with pytest.raises(UserError, match="the output embedding is trained"):
        module.ideal.reference(module.mllm.pack(data.evaluation_groups()[:1]))
    named = {n: p for n, p in module.named_parameters() if "lora_" in n}
    other = torch.cat([p.detach().flatten() for p in named.values()])
    assert (other - weights(reduced)).norm() / other.norm() < 1e-5


def test_full_distributions_of_the_own_images_are_the_vanilla_models(vanilla, data):
    """However far the adapter has come."""
    method = ViKeR(lam=2.0, same_image=True, direction="reverse")
    module = trained(vanilla, data, method, steps=2)
    groups = data.evaluation_groups()[:2]
    batch = module.mllm.pack(groups)
    student, (references, distributions) = (
        module.mllm.answer_tokens(batch),
        module.references.look_up("forget", groups, batch),
    )
    assert [*references] == [*distributions] == ["own"]
    reference, found = references["own"], distributions["own"]
    before = MLLM.load(vanilla)
    wanted = before.answer_tokens(before.pack(groups)).logits.softmax(-1)
    assert (student.logits.softmax(-1) - wanted).abs().max() > 1e-3
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert not found.requires_grad and not reference.log_prob.requires_grad


def test_parts_keep_every_question(mllm, data):
    mllm.max_sequence_tokens, mllm.max_tokens = 200, 400
    groups = data.evaluation_groups()[:6]
    parts = split_to_budget(mllm, groups)
    assert [q for part in parts for g in part for q in g.vqa] == [q for g in groups for q in g.vqa]
    for part in parts:
        rows, width = mllm.pack(part).input_ids.shape
        assert width <= 200 and rows * width <= 400
    mllm.max_sequence_tokens = 40
    with pytest.raises(UserError, match=r"max_sequence_tokens=40: image and question .* take .* tokens; raise it"):
        split_to_budget(mllm, groups)


def test_budgets_are_checked():
    with pytest.raises(UserError, match="at most max_tokens=10"):
        Engine(max_sequence_tokens=11, max_tokens=10)
