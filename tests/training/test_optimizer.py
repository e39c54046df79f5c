"""The optimizer by class path, AdamW as transformers had it, and what a resumed run finds again."""

import math

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from viker_lightning.data.datasets.mllmu import MLLMU
from viker_lightning.errors import UserError
from viker_lightning.methods import GradientAscent
from viker_lightning.models import MLLM, Lora
from viker_lightning.storage.runs import CheckpointFile
from viker_lightning.training import TransformersAdamW, Unlearn
from viker_lightning.training.optimizer import optimizer_of, schedule_of


def moved(make, steps=3, start=(1.0, -2.0, 0.5)):
    """Weights after each step along the same gradients."""
    p = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer, found = make([p]), []
    for step in range(steps):
        p.grad = torch.tensor([1e-7, 0.3, -2.0], dtype=torch.float64) * (step + 1)
        optimizer.step()
        found.append(p.detach().clone())
    return torch.stack(found)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_transformers_adamw_in_plain_lines(decay):
    """``eps`` beside the root of the uncorrected second moment; the decay after the step, of the weight it leaves."""
    lr, beta1, beta2, eps = 0.01, 0.9, 0.999, 1e-6
    wanted = []
    p, m, v = [1.0, -2.0, 0.5], [0.0] * 3, [0.0] * 3
    for t in range(1, 4):
        for i, g in enumerate(x * t for x in (1e-7, 0.3, -2.0)):
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g * g
            p[i] -= lr * math.sqrt(1 - beta2**t) / (1 - beta1**t) * m[i] / (math.sqrt(v[i]) + eps)
            p[i] -= lr * decay * p[i]
        wanted.append(list(p))
    found = moved(lambda ps: TransformersAdamW(ps, lr=lr, weight_decay=decay))
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=0)


def test_eps_weighs_more_than_in_torch():
    """Where a gradient is far below ``eps``, the first step is shorter by 1 / sqrt(1 - beta2)."""
    ours = 1 - moved(lambda ps: TransformersAdamW(ps, lr=0.01), steps=1)[0, 0]
    torchs = 1 - moved(lambda ps: torch.optim.AdamW(ps, lr=0.01, eps=1e-6, weight_decay=0), steps=1)[0, 0]
    assert torchs / ours == pytest.approx(1 / math.sqrt(0.001), rel=0.1)


def test_closure_and_weights_without_gradient():
    p, left = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = TransformersAdamW([p, left], lr=0.1)
    assert optimizer.step(lambda: (p.sum() * 2).backward() or 7) == 7
    assert (p < 1).all() and (left == 1).all() and left not in optimizer.state


def test_default_is_adamw_to_the_last_bit():
    one, two = (
        moved(make) for make in (lambda ps: optimizer_of(None, ps, 0.01, 0.1), lambda ps: torch.optim.AdamW(ps, 0.01))
    )
    assert not torch.equal(one, two)
    two = moved(lambda ps: torch.optim.AdamW(ps, lr=0.01, weight_decay=0.1))
    assert torch.equal(one, two)


def test_rate_and_decay_are_those_of_the_stage():
    p = [torch.nn.Parameter(torch.ones(2))]
    (group,) = optimizer_of(torch.optim.AdamW, p, 0.02, 0.3).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.3)
    optimizer_of(lambda ps: torch.optim.SGD(ps, lr=0.02, momentum=0.9), p, 0.02, 0.0)
    for make, decay, message in (
        (lambda ps: torch.optim.SGD(ps, lr=0.5), 0.0, "found lr=0.5 for SGD, but model.lr=0.02; set model.lr alone"),
        (lambda ps: TransformersAdamW(ps, weight_decay=0.1), 0.0, "found weight_decay=0.1 for TransformersAdamW"),
        (torch.optim.Rprop, 0.1, "Rprop has no weight_decay, but model.weight_decay=0.1; set that to 0"),
    ):
        with pytest.raises(UserError, match=message):
            optimizer_of(make, p, 0.02, decay)


@pytest.fixture(scope="module")
def few(cache):
    module = MLLMU("mini/ci", batch_size=4, questions_per_image=2)
    module.prepare_data()
    module.setup()
    return module


def run(base_folder, data, optimizer, folder=None, checkpoint=None, steps=4):
    seed_everything(0, verbose=False)
    module = Unlearn(
        GradientAscent(), str(base_folder), Lora(r=2, init="gaussian"), lr=1e-3, schedule="linear", optimizer=optimizer
    )
    fixed = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    callbacks = [ModelCheckpoint(folder, every_n_train_steps=2, save_top_k=-1)] if folder else []
    trainer = Trainer(**fixed, max_steps=steps, callbacks=callbacks, plugins=[CheckpointFile()])
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    return module


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])


OPTIMIZERS = {
    "transformers": TransformersAdamW,
    "sgd": lambda ps: torch.optim.SGD(ps, momentum=0.9, nesterov=True),
    "rprop": torch.optim.Rprop,
}


@pytest.mark.extended
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_run_is_the_same_to_the_last_bit(base_folder, few, tmp_path, name):
    whole = run(base_folder, few, OPTIMIZERS[name], tmp_path)
    (checkpoint,) = tmp_path.glob("*step=2*.ckpt")
    resumed = run(base_folder, few, OPTIMIZERS[name], checkpoint=checkpoint)
    few.steps_done = 0
    assert torch.equal(weights(resumed), weights(whole))
    assert not torch.equal(weights(whole), weights(run(base_folder, few, None)))


def test_resumed_run_obeys_its_own_settings(base_folder, few, tmp_path):
    run(base_folder, few, TransformersAdamW, tmp_path, steps=2)
    (checkpoint,) = tmp_path.glob("*.ckpt")
    resumed = run(base_folder, few, lambda ps: TransformersAdamW(ps, betas=(0.5, 0.6)), checkpoint=checkpoint)
    few.steps_done = 0
    (group,) = resumed.trainer.optimizers[0].param_groups
    assert tuple(group["betas"]) == (0.5, 0.6) and group["lr"] == 0  # the schedule's end


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_rate_falls_only_towards_an_end(schedule):
    """``trainer.max_time`` alone, say, does not tell how many steps there will be."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    if schedule != "constant":
        with pytest.raises(UserError, match=f"^model.schedule: {schedule} ends with the last step, but nothing says"):
            schedule_of(schedule, optimizer, 1, math.inf)
        return
    made = schedule_of(schedule, optimizer, 1, math.inf)
    rates = []
    for _ in range(3):
        rates += made.get_last_lr()
        optimizer.step()
        made.step()
    assert rates == [0.0, 0.5, 0.5]


def test_state_of_another_optimizer_is_refused(base_folder, few, tmp_path):
    run(base_folder, few, TransformersAdamW, tmp_path, steps=2)
    (checkpoint,) = tmp_path.glob("*.ckpt")
    with pytest.raises(UserError, match="has the state of TransformersAdamW, but this run's optimizer is AdamW;"):
        run(base_folder, few, None, checkpoint=checkpoint)
    few.steps_done = 0


def test_gaussian_adapters(base_folder):
    """``init_lora_weights="gaussian"``: A of standard deviation 1 / r, B zero; PEFT's own A is far smaller."""
    spread = {}
    for init in (True, "gaussian"):
        seed_everything(0, verbose=False)
        model = MLLM.load(base_folder)
        model.adapt(Lora(r=16, init=init))
        named = dict(model.named_parameters())
        assert not any(p.any() for name, p in named.items() if "lora_B" in name)
        spread[init] = torch.cat([p.flatten() for name, p in named.items() if "lora_A" in name]).std().item()
        widths = [p.shape[1] for name, p in named.items() if "lora_A" in name]
    assert spread["gaussian"] == pytest.approx(1 / 16, rel=0.02)
    assert spread[True] < 1 / math.sqrt(3 * min(widths)) * 1.02
    seed_everything(0, verbose=False)
    usual = MLLM.load(base_folder)
    usual.adapt(Lora(r=16))
    assert torch.cat([p.flatten() for n, p in usual.named_parameters() if "lora_A" in n]).std().item() == spread[True]


@pytest.mark.parametrize("init", ["pissa", False, "Gaussian"])
def test_other_starts_are_refused(init):
    with pytest.raises(UserError, match=f"model.lora.init: found {init!r}, expected true or gaussian"):
        Lora(init=init)
