"""Unlearning without LoRA: the same loss and gradient as with a second, frozen model, which nobody has to hold."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from support.plain_route import plain_ideal, plain_logits
from support.weights import random_vanilla
from viker_lightning.data.datasets.mllmu import MLLMU
from viker_lightning.errors import UserError
from viker_lightning.ideal import token_kl
from viker_lightning.methods import NPO, GradientAscent, KLMinimization, Stranger, ViKeR
from viker_lightning.models import MLLM, Lora
from viker_lightning.training import Unlearn
from viker_lightning.training.engine import Engine

CI = "mini/ci"


class Few(MLLMU):
    """Two people a stream with eight questions each, since the original model is asked all of them."""

    @property
    def streams(self):
        return {name: [replace(p, vqa=p.vqa[:8]) for p in people[:2]] for name, people in super().streams.items()}


@pytest.fixture(scope="module")
def few(cache):
    module = Few(CI, batch_size=4, questions_per_image=2)
    module.prepare_data()
    module.setup()
    return module


@pytest.fixture(scope="module")
def vanilla(base_folder, tmp_path_factory):
    return str(random_vanilla(base_folder, tmp_path_factory.mktemp("vanilla")))


class Watched(Unlearn):
    """Notes batch, weights and gradient of the second step, when the student is not the original any more."""

    seen = None

    def training_step(self, batch, batch_idx):
        if batch_idx == 1:
            self.seen = (batch.content, copy.deepcopy(self.mllm.state_dict()))
        return super().training_step(batch, batch_idx)

    def on_before_optimizer_step(self, optimizer):
        super().on_before_optimizer_step(optimizer)
        self.gradient = {n: p.grad.clone() for n, p in self.mllm.named_parameters() if p.grad is not None}


def fitted(vanilla, data, method, references="memory", steps=2, folder=None, checkpoint=None):
    seed_everything(0, verbose=False)
    module = Watched(method, vanilla, None, lr=1e-3, engine=Engine(references=references))
    callbacks = [ModelCheckpoint(folder, save_last=True, every_n_train_steps=1)] if folder else []
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=bool(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    data.batches_per_step = 1
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    return module


def plain_loss(method, student, original, batch, pictures):
    """The losses in their full form, from two models."""
    logits, tokens = plain_logits(student, batch["forget"])
    if isinstance(method, ViKeR):
        ideal = plain_ideal(original, batch["forget"], pictures)
        return method.lam * token_kl(ideal, logits).mean() + tokens.log_probs.mean()
    with torch.no_grad():
        then = plain_logits(original, batch["forget"])[1]
        kept = plain_logits(original, batch["retain"])[0].softmax(-1) if "retain" in batch else None
    if isinstance(method, KLMinimization):
        return token_kl(kept, plain_logits(student, batch["retain"])[0]).mean() + tokens.log_probs.mean()
    ratio = tokens.sum_by_question(tokens.log_probs) - then.sum_by_question(then.log_probs)
    return -2 / method.beta * torch.nn.functional.logsigmoid(-method.beta * ratio).mean()


@pytest.mark.extended
@pytest.mark.parametrize(
    ("method", "references"),
    [(ViKeR(lam=2.0, k=2), "memory"), (KLMinimization(), "memory"), (NPO(beta=0.4), "disk")],
    ids=["viker", "kl", "npo"],
)
def test_gradient_is_that_of_two_models(vanilla, few, method, references):
    module = fitted(vanilla, few, method, references)
    batch, weights = module.seen
    student, original = MLLM.load(vanilla).eval(), MLLM.load(vanilla).eval().requires_grad_(False)
    student.load_state_dict(weights)
    student.train_fully(head=False)
    loss = plain_loss(module.method, student, original, batch, module.pictures)
    loss.backward()
    torch.testing.assert_close(module.trainer.callback_metrics["train/loss"], loss.detach(), rtol=1e-4, atol=1e-5)
    wanted = {n: p.grad for n, p in student.named_parameters() if p.grad is not None}
    assert wanted.keys() == module.gradient.keys()
    assert all(".language_model." in name for name in wanted) and len(wanted) > 20
    difference = sum((wanted[n] - g).square().sum() for n, g in module.gradient.items()).sqrt()
    assert difference / sum(g.square().sum() for g in wanted.values()).sqrt() < 1e-4


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])


@pytest.mark.extended
def test_resumed_run_finds_what_the_original_answered_about_strangers(vanilla, few, tmp_path):
    def stranger():
        return Stranger(k=2, rehearsal=True)

    whole = fitted(vanilla, few, stranger(), "disk", steps=3)
    fitted(vanilla, few, stranger(), "disk", steps=1, folder=tmp_path)
    resumed = fitted(vanilla, few, stranger(), "disk", steps=3, checkpoint=tmp_path / "last.ckpt")
    assert whole.report.strangers == resumed.report.strangers and whole.report.strangers["answers"] > 0
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=1e-5, atol=1e-6)


@pytest.mark.extended
def test_resumed_run_finds_what_the_original_said(vanilla, few, tmp_path):
    whole = fitted(vanilla, few, KLMinimization(), "disk", steps=3)
    fitted(vanilla, few, KLMinimization(), "disk", steps=1, folder=tmp_path)
    resumed = fitted(vanilla, few, KLMinimization(), "disk", steps=3, checkpoint=tmp_path / "last.ckpt")
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="training without LoRA overwrote it"):
        fitted(vanilla, few, KLMinimization(), "memory", steps=3, checkpoint=tmp_path / "last.ckpt")


def test_what_needs_the_original_in_every_step_says_so(vanilla, few):
    with pytest.raises(UserError, match=r"model\.lora=null: the reverse KL needs every probability"):
        fitted(vanilla, few, ViKeR(k=2, direction="reverse"))
    with pytest.raises(UserError, match=r"model\.engine.references=off asks the original model in every step"):
        fitted(vanilla, few, NPO(), "off")
    with pytest.raises(UserError, match="quantize=nf4 goes with LoRA"):
        Unlearn(NPO(), vanilla, None, quantize="nf4")


def test_steps_that_vanish_are_warned_of(vanilla, few, caplog):
    for precision, lora, warned in (("bf16-true", None, True), ("bf16-true", Lora(r=2), False), ("32", None, False)):
        caplog.clear()
        module = Unlearn(GradientAscent(), vanilla, lora)
        Trainer(
            accelerator="cpu", precision=precision, max_steps=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False,
        ).fit(module, datamodule=few)  # fmt: skip
        assert ("rounded away" in caplog.text) == warned


def test_unlearning_that_is_rounded_away_is_warned_of(vanilla, few, tmp_path, caplog):
    """Of merged weights, that a run goes on from: by its type, or by the trainer's after it."""
    shutil.copytree(vanilla, tmp_path / "merged")
    (tmp_path / "merged/share_kept.txt").write_text("bfloat16 0.3\nfloat16 0.99\n")
    for dtype, precision, warned in (
        ("bfloat16", "32", True), ("float32", "bf16-true", True), ("float16", "32", False), ("float32", "32", False)
    ):  # fmt: skip
        caplog.clear()
        module = Unlearn(GradientAscent(), str(tmp_path / "merged"), Lora(r=2), dtype=dtype)
        Trainer(
            accelerator="cpu", precision=precision, max_steps=0, logger=False, enable_checkpointing=False,
            enable_progress_bar=False,
        ).fit(module, datamodule=few)  # fmt: skip
        assert ("bfloat16 keeps 0.30 of the change" in caplog.text) == warned
