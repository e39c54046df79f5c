"""Trains a few steps in every way, and by every method, that several processes could change."""

import os
from dataclasses import replace

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from safetensors.torch import save_file

from support import every_method
from support.every_method import PREPARE, Few
from viker_lightning.data.datasets.mllmu import MLLMU
from viker_lightning.errors import UserError
from viker_lightning.methods import Around, GradientDifference, Stranger, ViKeR
from viker_lightning.methods.elsewhere import Elsewhere
from viker_lightning.models import Lora
from viker_lightning.models.dtensor import gather
from viker_lightning.training import FSDP2, Finetune, Unlearn, step
from viker_lightning.training.engine import Engine

SMALL = Engine(max_sequence_tokens=140, max_tokens=200, references="off")
KEPT = Engine(max_sequence_tokens=140, max_tokens=200)


def unlearn(method, model="untied", engine=KEPT):
    return lambda models: Unlearn(method(), str(models / model), Lora(r=4, alpha=8), lr=1e-3, engine=engine)


def finetune(model, lora=None, projector=False):
    options = {"lr": 1e-3, "warmup_steps": 0, "schedule": "constant", "engine": KEPT}
    return lambda models: Finetune(str(models / model), lora, projector, **options)


class FewPhotos(Finetune):
    """One process has an image in its last step and the other has none; then nobody has one; then both do."""

    def streams(self, batch, step):
        every = [True, False, False, False, True, True]
        world, rank, each = self.trainer.world_size, self.trainer.global_rank, 2 // self.trainer.world_size
        mine = every[2 * self.global_step :][rank * each : (rank + 1) * each]
        assert len(batch["train"]) == each and world <= 2
        photos = zip(batch["train"], mine, strict=True)
        return {"train": [group if shown else replace(group, image=None) for group, shown in photos]}


def few_photos(models):
    return FewPhotos(str(models / "untied"), Lora(r=4), True, lr=1e-3, warmup_steps=0, schedule="constant", engine=KEPT)


class HiddenStates(Finetune):
    """Its loss reads what comes out of the first two of three layers, and stops there."""

    deepest = 1

    def loss_terms(self, groups, totals):
        tokens = answers_of(self, groups["train"], totals["train"], (0, -2))
        return {"loss": tokens.mean(sum(h.float().square().mean(-1) for h in tokens.layers.values()))}


class BesideWords(Unlearn):
    """Reads hidden states of forget answers and words of a few retain answers, which the first parts hold."""

    def streams(self, batch, step):
        return batch | {"retain": [replace(group, vqa=group.vqa[:1]) for group in batch["retain"]]}

    def loss_terms(self, groups, totals):
        assert groups["forget"] or self.trainer.world_size > 1
        forget = answers_of(self, groups["forget"], totals["forget"], (0,))
        retain = answers_of(self, groups["retain"], totals["retain"])
        return {"loss": forget.mean(forget.layers[0].float().square().mean(-1)) - retain.mean(retain.log_probs)}


def answers_of(stage, groups, total, layers=()):
    return step.answers_of(stage.mllm, stage.mllm.pack(groups) if groups else None, total, layers)


def hidden_states(lora):
    """Weights that no gradient reaches must not decay either."""
    options = {"lr": 1e-3, "weight_decay": 0.5, "warmup_steps": 0, "schedule": "constant", "engine": KEPT}
    return lambda models: HiddenStates(str(models / "untied"), lora, **options)


def beside_words(models):
    options = {"lr": 1e-3, "engine": KEPT, "optimizer": torch.optim.SGD}  # AdamW makes much of rounding here
    return BesideWords(GradientDifference(), str(models / "untied"), Lora(r=4, alpha=8), **options)


def by(kind, number):
    """A method by steps of SGD, for AdamW makes much of rounding; an edit of the weights themselves."""

    def make(models):
        method = every_method.make(kind, number)
        options = {"lr": 1.0, "engine": Engine() if method.whole_steps else KEPT, "optimizer": torch.optim.SGD}
        return Unlearn(method, str(models / "untied"), Lora(r=4, alpha=8) if kind.takes_steps else None, **options)

    return make


def viker():
    return ViKeR(lam=2.0, k=2, retain_weight=1.0)


CASES = {
    "viker": (unlearn(viker), {}),
    "viker tied, nothing kept": (unlearn(viker, "tied", SMALL), {}),
    "stranger, rehearsal": (unlearn(lambda: Stranger(k=2, rehearsal=True), engine=SMALL), {}),
    "accumulated": (unlearn(GradientDifference), {"steps": 1, "accumulate_grad_batches": 2}),
    "checkpointing": (unlearn(viker, engine=Engine(gradient_checkpointing=True)), {}),
    "bf16": (unlearn(viker), {"precision": "bf16-true"}),
    "plain route": (unlearn(viker, "windowed", Engine(max_sequence_tokens=400, max_tokens=400)), {}),
    "qwen": (unlearn(viker, "qwen2_5_vl", Engine()), {}),
    "full": (finetune("untied"), {"stage": "vanilla"}),
    "unlearn full": (lambda models: Unlearn(viker(), str(models / "untied"), None, lr=1e-4, engine=KEPT), {}),
    "full tied": (finetune("tied"), {"stage": "vanilla"}),
    "finetune lora": (finetune("untied", Lora(r=4)), {"stage": "vanilla"}),
    "finetune projector": (finetune("untied", Lora(r=4), projector=True), {"stage": "vanilla"}),
    "few photos": (few_photos, {"stage": "vanilla", "steps": 3}),
    "hidden states": (hidden_states(Lora(r=4)), {"stage": "vanilla"}),
    "hidden states, full": (hidden_states(None), {"stage": "vanilla"}),
    "hidden states beside words": (beside_words, {}),
}

METHODS = {
    f"{kind.__name__}-{number}": (by(kind, number), {"steps": 4 if kind.in_passes else 3, "few": kind in PREPARE})
    for kind, number in every_method.CASES
    if kind not in (Around, Elsewhere)
}
"""Every method; three steps, of which some show what the first did to their own state."""


class SaveLast(Callback):
    """Saves after the last step, while the epoch is running, as a run does."""

    def __init__(self, file):
        self.file = file

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == trainer.max_steps:
            trainer.save_checkpoint(self.file)


def watch(module, file):
    """Saves the gradient of the first step, of all processes and not clipped yet."""
    clip = module.configure_gradient_clipping

    def clipping(optimizer, *args, **options):
        if module.global_step == 0:
            gradients = {name: gather(p.grad) for name, p in module.named_parameters() if p.grad is not None}
            if module.global_rank == 0:
                file.parent.mkdir(parents=True, exist_ok=True)
                save_file({name: g.detach().float().cpu().contiguous() for name, g in gradients.items()}, file)
        clip(optimizer, *args, **options)

    module.configure_gradient_clipping = clipping


def run(case, models, out, strategy="auto", resume=None, **more):
    """Trains a case and saves its weights; what refuses sharded weights says so in ``refused``."""
    make, options = (CASES | METHODS)[case]
    options = {"steps": 2, "stage": "unlearn", "few": False, **options, **more}
    steps, stage, data = options.pop("steps"), options.pop("stage"), Few if options.pop("few") else MLLMU
    world = int(os.environ.get("WORLD_SIZE", "1"))
    seed_everything(0, verbose=False)
    module = make(models)
    watch(module, out / case / "gradient.safetensors")
    trainer = Trainer(
        accelerator="cpu",
        devices=world,
        strategy=FSDP2() if strategy == "fsdp" else strategy,
        max_steps=steps,
        gradient_clip_val=0.5,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=out / case,
        callbacks=[SaveLast(out / case / "last.ckpt")],
        **options,
    )
    try:
        trainer.fit(module, datamodule=data("mini/ci", stage=stage, batch_size=16 // world), ckpt_path=resume)
    except UserError as error:
        if strategy != "fsdp" or not str(error).startswith("trainer.strategy: "):
            raise
        (out / case).mkdir(parents=True, exist_ok=True)
        (out / case / "refused").write_text(str(error))
        return
    module.save_weights(out / case)
    if trainer.is_global_zero:
        print(f"{strategy} {world}: {case}", flush=True)
