"""A training step, from image groups to the gradient of their loss.

What happens in a step, in order; the hooks are those of ``base.py``, and ``unlearn.py`` calls the method in some:

1. ``optimizer_step`` is called by Lightning, and has 2 to 6 done before the optimizer moves a weight.
2. ``training_step``: ``Stage.step_questions`` says what is asked, worded and labelled as the protocol does;
   :func:`take_step` cuts it into parts, passes them (``Stage.loss_terms``), and gives the gradient of all but the last.
3. ``optimizer_zero_grad`` does nothing: those gradients are to stay.
4. ``backward`` of the last part, whose loss was returned; DDP averages over processes here, once a step.
5. ``on_before_optimizer_step``: processes combine their gradients, the first are looked at, the method may shape them.
6. ``configure_gradient_clipping``: a gradient that is not finite is noted, another is clipped.
7. The optimizer steps, gradients are dropped, and the method is told what was logged.
8. ``on_train_batch_end``: the run stops at what is broken, unless a callback has fixed it.

A step asks questions of one or more streams (forget, retain) and may be more than the model takes at once. So it is
cut into parts that pass one after the other. A part takes its means over the tokens and questions of the whole step,
which makes its loss one term of a sum: the gradients of all parts add up to that of the step.
"""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from viker_lightning.data.packing import PackedBatch
from viker_lightning.data.records import ImageGroup
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, AnswerTokens, split_to_budget

from .distributed import Processes, with_zeros

Groups = dict[str, list[ImageGroup]]
"""Image groups by stream."""

Totals = dict[str, tuple[float, float]]
"""Tokens and questions of a whole step by stream."""

Terms = dict[str, Tensor]
"""``loss``, and whatever else is logged: scalars."""


def take_step(
    mllm: MLLM,
    groups: Groups,
    loss_terms: Callable[[Groups, Totals], Terms],
    backward: Callable[[Tensor], Any],
    processes: Processes,
    max_questions: int | None = None,
    whole: bool = False,
) -> tuple[Tensor, Terms]:
    """Gives the gradient of all parts of a step but the last, whose loss is returned for the trainer's own backward.

    Args:
        mllm: the model.
        groups: what the step asks.
        loss_terms: what a part, possibly of no questions, adds to the terms of its step.
        backward: adds the gradient of a loss to the weights'.
        processes: those that take this step together.
        max_questions: most questions in a part of a stream; ``None`` is all.
        whole: whether the loss is no sum over parts.

    Returns:
        The loss of the last part, with its graph, and the terms of the step, as means over processes.

    Raises:
        UserError: if a step that must be whole needs several parts.
    """
    parts = cut(mllm, groups, max_questions, whole) or [{name: [] for name in groups}]
    parts += [{name: [] for name in groups}] * (processes.parts_needed(len(parts)) - len(parts))
    totals = {name: count(mllm, some, processes) for name, some in groups.items()}
    step_terms: Terms = {}
    for number, part in enumerate(parts, start=1):
        last = number == len(parts)
        with mllm.together(keep=True):
            terms = loss_terms(part, totals)
        loss = processes.complete(terms["loss"], last)
        if not loss.requires_grad and mllm.lockstep is None:  # a part in which all streams have run out
            loss = with_zeros(loss, [p for p in mllm.parameters() if p.requires_grad])
        step_terms = {name: step_terms.get(name, 0) + value.detach() for name, value in terms.items()}
        if not last:
            backward(loss)
    return loss, processes.mean(step_terms)


def cut(mllm: MLLM, groups: Groups, max_questions: int | None, whole: bool) -> list[Groups]:
    """A step in as many parts as the model's token budgets ask for; a stream that runs out is empty."""
    streams = [split_to_budget(mllm, some, max_questions) for some in groups.values()]
    parts = [dict(zip(groups, part, strict=True)) for part in zip_longest(*streams, fillvalue=[])]
    if whole and len(parts) > 1:
        raise UserError(
            f"this objective has no parts, but the step has {len(parts)}; raise model.engine.max_tokens and "
            "max_sequence_tokens, or lower data.batch_size and trainer.accumulate_grad_batches"
        )
    return parts


def count(mllm: MLLM, groups: list[ImageGroup], processes: Processes) -> tuple[float, float]:
    """Answer tokens and questions, as means over processes: so a mean of their losses counts each token once.

    Of nothing there is one, so that what a stream adds in a step that does not ask it is 0.
    """
    encoded = [mllm.encoder.encode(vqa, group.image is not None) for group in groups for vqa in group.vqa]
    counts = {"tokens": sum(len(question.answer) for question in encoded), "questions": len(encoded)}
    means = processes.mean({name: torch.tensor(n, dtype=torch.float64) for name, n in counts.items()})
    return means["tokens"].item() or 1.0, means["questions"].item() or 1.0


def answers_of(
    mllm: MLLM, batch: PackedBatch | None, total: tuple[float, float], layers: Sequence[int] = ()
) -> AnswerTokens:
    """Answer tokens of a part that know their step, with the outputs of decoder layers; ``None`` asks nothing."""
    if batch is None:
        return AnswerTokens.none(mllm.head, total, layers)
    tokens = mllm.answer_tokens(batch, layers)
    tokens.step = total
    return tokens
