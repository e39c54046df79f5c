"""Before and after: whoever has the model from before unlearning as well sees what was taken out of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch import Tensor
from typing_extensions import override

from viker_lightning.attacks.attempt import Attempt
from viker_lightning.attacks.base import Attack, ask, check_packing
from viker_lightning.attacks.material import Material
from viker_lightning.attacks.subject import Subject
from viker_lightning.data.packing import PackedBatch
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM
from viker_lightning.models.logits import logits_of

BOTH, VANILLA = "before and after", "vanilla alone"

NEVER = -1e4
"""Log-probability of a token that is not to be said; with a finite one all means stay numbers."""


@dataclass(frozen=True)
class Difference(Attack):
    """Answers greedily by ``log p_after + w (log p_before - log p_after)``, where vanilla is what was before.

    At 0 the model speaks, at 1 vanilla; above 1 what unlearning made less likely gets likelier than vanilla ever had
    it. Only tokens are said that vanilla itself finds likely. The attacker has next-token probabilities of both, as of
    open weights, or of an interface that was there before and after.

    **Vanilla alone gives nearly everybody away, so a hit says nothing by itself.** What the attack claims is that the
    two give away more than vanilla, so vanilla alone takes the place that guessing has elsewhere (``chance``), and what
    is above it, question by question, is the attack's own (``above``, -1 to 1, 0 if unlearning told nothing). Gold
    loses too, as the source shows: the difference from gold says whether this run gives away more than having trained
    anew would have. Nobody counts as brought back by it, since vanilla brings everybody back. People who are kept, of
    whom the two say the same, are asked the same way.

    Args:
        weights: the w, each above 1; 2 is the source's.
        within: nats that a token may be less likely to vanilla than its likeliest.

    Raises:
        UserError: if a weight is 1 or less.
    """

    name = "difference"
    about = "decodes by how next-token probabilities differ before and after unlearning, beside vanilla alone"
    source = (
        "arXiv 2505.24379: Nicholas0228/unlearned_data_extraction_llm af1dfe4 MUSE/evaluate_util.py L403-434 (w 2, "
        "greedy, tokens within 5 nats of the likeliest before unlearning); other w are ours"
    )
    axis = "weight"
    beside = (VANILLA,)
    guessing = VANILLA
    says = False  # who has vanilla needs nothing else to know everybody
    costly = True
    subjects = ("run", "gold")
    needs = ("vanilla",)
    conditions = (BOTH,)

    weights: tuple[float, ...] = (1.5, 2.0, 3.0)
    within: float = 5.0

    def __post_init__(self) -> None:
        if wrong := [w for w in self.weights if not w > 1]:
            raise UserError(f"difference.weights: found {wrong[0]}, expected more than 1; at 1 vanilla alone speaks")

    @override
    @classmethod
    def quick(cls) -> Self:
        return cls(weights=(2.0,))

    @override
    def carry_out(self, part: str, subject: Subject, material: Material) -> list[Attempt]:
        after, before = subject.load(), subject.other("vanilla").load()
        check_packing(self.name, after, before)
        found = ask(after, material.asked, self.clean)
        alone = ask(before, material.asked, VANILLA)
        for weight in self.weights:
            pair = cast("MLLM", Pair(after, before, weight, self.within))
            found += [*ask(pair, material.asked, BOTH, weight), *(replace(one, x=weight) for one in alone)]
        return found


def combined(after: Tensor, before: Tensor, weight: float, within: float) -> Tensor:
    """Scores of the next token by two models.

    Args:
        after: ``[n, V]`` logits after unlearning.
        before: ``[n, V]`` logits before it.
        weight: 0 is after, 1 before, more goes beyond it.
        within: nats that a token may be less likely before unlearning than the likeliest one.

    Returns:
        ``[n, V]``, fp32: ``log p_after + weight (log p_before - log p_after)``, and :data:`NEVER` of all other tokens.
    """
    was, now = before.float().log_softmax(-1), after.float().log_softmax(-1)
    return torch.lerp(now, was, weight).masked_fill(was < was.amax(-1, keepdim=True) - within, NEVER)


class Pair:
    """Two models that read and decode side by side, as one that says what :func:`combined` finds likeliest.

    Hidden states of both stand behind one another, and only the output layer knows that there are two; in everything
    else it is the model after unlearning.

    Args:
        after: the model after unlearning, which packs.
        before: the one before it, of the same shape and tokenizer, in evaluation mode.
        weight: as :func:`combined` has it.
        within: as :func:`combined` has it.
    """

    def __init__(self, after: MLLM, before: MLLM, weight: float, within: float) -> None:
        self.after, self.before, self.weight, self.within = after, before, weight, within

    def __getattr__(self, name: str) -> Any:
        return getattr(self.after, name)

    def key_values(self, room: int) -> Any:
        """Empty key/values of both."""
        return self.after.key_values(room), self.before.key_values(room)

    def hidden(self, batch: PackedBatch, cache: Any = (None, None)) -> Tensor:
        """``[B, T, 2 d]`` last hidden states of packed sequences."""
        return torch.cat([self.after.hidden(batch, cache[0]), self.before.hidden(batch, cache[1])], dim=-1)

    def read(self, input_ids: Tensor, positions: Tensor, mask: Tensor, pictures: Sequence[Any], cache: Any) -> Tensor:
        """``[B, T, 2 d]`` last hidden states of what follows key/values."""
        now, was = cache
        place = input_ids, positions, mask, pictures
        return torch.cat([self.after.read(*place, cache=now), self.before.read(*place, cache=was)], dim=-1)

    def head(self, hidden: Tensor) -> Tensor:
        """``[n, V]`` scores of ``[n, 2 d]`` hidden states."""
        now, was = hidden.chunk(2, dim=-1)
        logits = logits_of(self.after.head, now), logits_of(self.before.head, was)
        return combined(*logits, self.weight, self.within)
