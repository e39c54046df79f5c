"""What a method may use before the first step: the model, and all questions of a stream."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import accumulate

from torch import Tensor

from viker_lightning.data.records import ImageGroup
from viker_lightning.models import MLLM, AnswerTokens, split_to_budget
from viker_lightning.terminal.progress import Bar

from .distributed import Processes
from .step import count


class Prepare:
    """Passes over whole streams, for saliency, Fisher information or statistics of activations.

    Args:
        mllm: the model, as the first step finds it.
        groups: gives every question of a stream with every image it may be asked about.
        layers: decoder layers whose hidden states the method reads.
        processes: those that prepare together.
        resumed: whether the run was stopped before, so that weights have moved, and the method's state follows.
        forget_names: gives the names of those to be forgotten, as far as the data say them.
    """

    def __init__(
        self,
        mllm: MLLM,
        groups: Callable[[str], list[ImageGroup]],
        layers: tuple[int, ...],
        processes: Processes,
        resumed: bool = False,
        forget_names: Callable[[], list[str]] = list,
    ) -> None:
        self.mllm, self.processes, self.resumed, self.forget_names = mllm, processes, resumed, forget_names
        self._groups, self._layers = groups, layers

    def passes(self, stream: str, title: str, once: bool = False) -> Iterator[AnswerTokens]:
        """Answer tokens of all questions of a stream, part by part, with a progress bar.

        Means of them are shares of the stream's, so that values and gradients of all parts add up; several processes
        share the parts, see :meth:`total`. Take gradients with ``torch.autograd.grad``: weights keep none.

        Args:
            stream: ``forget``, ``retain``, ``strangers`` or ``alternative``.
            title: what the bar says.
            once: whether every question is asked once, its person's photos taking turns as in an epoch, and not behind
                each of them.

        Yields:
            The student's answer tokens, with gradient.
        """
        groups = in_turns(self._groups(stream)) if once else self._groups(stream)
        tokens, questions = count(self.mllm, groups, Processes())
        parts = split_to_budget(self.mllm, groups)
        sizes = [sum(len(group.vqa) for group in part) for part in parts]
        numbered = zip(parts, accumulate(sizes, initial=0), sizes, strict=False)
        shared = self.processes.share(list(numbered))
        bar = Bar(title, sum(size for *_, size in shared), "questions", shown=questions >= 100)
        with bar, self.mllm.together(keep=True):
            for part, first, size in shared:
                answers = self.mllm.answer_tokens(self.mllm.pack(part), self._layers)
                answers.step, answers.first = (tokens, questions), first
                yield answers
                bar.advance(size)

    def total(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums over processes of what each made of its parts."""
        return self.processes.total(values)


def in_turns(groups: list[ImageGroup]) -> list[ImageGroup]:
    """Every question of a person behind one photo; given are all behind each."""
    people: dict[str, list[ImageGroup]] = {}
    for group in groups:
        people.setdefault(group.person, []).append(group)
    turns = [replace(g, vqa=g.vqa[i :: len(some)]) for some in people.values() for i, g in enumerate(some)]
    return [group for group in turns if group.vqa]
