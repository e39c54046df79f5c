"""The optimizer of a stage, and AdamW as transformers had it until its version 5."""

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler
from typing_extensions import override

from viker_lightning.errors import UserError

log = logging.getLogger(__name__)


class TransformersAdamW(Optimizer):
    """AdamW that adds ``eps`` before the bias of the second moment is corrected, and decays weights after the step.

    With ``m`` and ``v`` the running means of a gradient and its square, and ``c1``, ``c2`` their corrections, a weight
    moves by ``lr * sqrt(c2) / c1 * m / (sqrt(v) + eps)``. In the first steps ``eps`` therefore weighs ``1 / sqrt(c2)``
    times more than in ``torch.optim.AdamW``: 32 times in the first.

    Source: huggingface/transformers v4.45.1, ``src/transformers/optimization.py``, ``AdamW``, which version 5 dropped
    and MLLMU-Bench's scripts use.

    Args:
        params: as in every optimizer.
        lr: learning rate.
        betas: of the two running means.
        eps: what keeps the denominator from 0.
        weight_decay: times the learning rate, taken off each weight.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, p.grad, group)
        return loss

    def _move(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2), lr = self.state[p], group["betas"], group["lr"]
        if not state:
            state["step"] = torch.tensor(0.0)  # a tensor, as in torch's own optimizers
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        state["step"] += 1
        mean, square, steps = state["exp_avg"], state["exp_avg_sq"], state["step"].item()
        mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        size = lr * math.sqrt(1 - beta2**steps) / (1 - beta1**steps)
        p.addcdiv_(mean, square.sqrt().add_(group["eps"]), value=-size)
        if group["weight_decay"] > 0:
            p.add_(p, alpha=-lr * group["weight_decay"])


def optimizer_of(
    make: OptimizerCallable | None, trained: Sequence[Tensor], lr: float, weight_decay: float
) -> Optimizer:
    """An optimizer of a stage's weights, with the stage's learning rate and weight decay; ``None`` makes torch's AdamW.

    What it is set to besides the learning rate, which a schedule moves, outlives the loading of a state: a resumed run
    obeys its own options. It is an error if it was given others, or knows no weight decay where one is set.
    """
    foreach = None if len({isinstance(p, DTensor) for p in trained}) == 1 else False  # never both kinds at once
    if make is None:
        made: Optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay, foreach=foreach)
    else:
        made = make(trained)
        settings: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        for name, value in settings.items():
            _check_alone(made, name, value)
        settings |= {} if foreach is None else {"foreach": foreach}
        for known in (made.defaults, *made.param_groups):
            known.update({name: value for name, value in settings.items() if name in known})

    def obey(optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            group.update({name: value for name, value in optimizer.defaults.items() if name != "lr"})

    made.register_load_state_dict_post_hook(obey)
    return made


def schedule_of(name: str, optimizer: Optimizer, warmup_steps: int, steps: float) -> LambdaLR:
    """A schedule of the learning rate, by step.

    After a linear warm-up it is ``constant``, or falls ``linear`` to 0 or by ``cosine`` to 3 % at the last step. It is
    an error if a rate is to fall and the steps of the run are infinite: only the clock, or nothing, ends it.
    """
    if name != "constant" and steps == math.inf:
        raise UserError(
            f"model.schedule: {name} ends with the last step, but nothing says which that is; set trainer.max_steps or "
            "max_epochs, or the schedule to constant"
        )
    theirs = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine_with_min_lr"}[name]
    last = {"min_lr_rate": 0.03} if name == "cosine" else None
    number = int(steps) if steps < math.inf else None
    return get_scheduler(theirs, optimizer, warmup_steps, number, scheduler_specific_kwargs=last)


def _check_alone(made: Optimizer, name: str, value: float) -> None:
    """Refuses an optimizer that was given another value than the stage's, or has no use for the stage's."""
    kind = type(made).__name__
    if name not in made.defaults:
        if value:
            raise UserError(f"model.optimizer: {kind} has no {name}, but model.{name}={value}; set that to 0")
        return
    usual = inspect.signature(type(made)).parameters[name].default
    if made.defaults[name] not in (usual, value):
        raise UserError(
            f"model.optimizer: found {name}={made.defaults[name]} for {kind}, but model.{name}={value}; set "
            f"model.{name} alone"
        )


def warn_of_small_steps(trained: Iterable[Tensor]) -> None:
    """Warns if weights are trained in a type in which small steps vanish: bf16 keeps 8 bits, so none below 1/256."""
    kinds = {str(p.dtype).removeprefix("torch.") for p in trained} & {"bfloat16", "float16"}
    if kinds:
        log.warning(
            "trained weights are %s, in which small steps are rounded away: train LoRA, or keep them in float32 "
            "(model.dtype=float32, trainer.precision=bf16-mixed)",
            " and ".join(sorted(kinds)),
        )
