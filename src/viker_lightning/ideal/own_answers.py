"""What the frozen model answers when asked freely behind the pictures of strangers."""

from collections.abc import Sequence
from typing import Any

from viker_lightning.data.records import ImageGroup, Picture
from viker_lightning.metrics import keyword_match
from viker_lightning.models import MLLM, generate
from viker_lightning.terminal.progress import Bar


class OwnAnswers:
    """Knows the frozen model's greedy answers to questions about pictures.

    An answer that holds a private span of the forget set is none: the model takes a stranger for a person who is to be
    forgotten, and training on it would keep what should go.

    Args:
        mllm: the model; it is asked within :meth:`prepare` only.
        private: private spans of the forget set.
        max_new_tokens: where an answer ends at the latest.

    Attributes:
        dropped: how many answers held a private span, or nothing at all.
    """

    def __init__(self, mllm: MLLM, private: Sequence[str], max_new_tokens: int) -> None:
        self.mllm, self.max_new_tokens = mllm, max_new_tokens
        self.private = sorted(set(private))
        self.dropped = 0
        self._answers: dict[tuple[str, str], str | None] = {}

    def prepare(self, groups: Sequence[ImageGroup]) -> None:
        """Asks the frozen model, with a progress bar; all processes call it together.

        Args:
            groups: every question about every picture.
        """
        bar = Bar("answers about strangers", len(groups), "pictures", shown=len(groups) >= 10)
        with bar, self.mllm.together(), self.mllm.frozen():
            for group in groups:
                (texts,) = generate(self.mllm, [group], self.max_new_tokens)
                assert group.image is not None
                for vqa, text in zip(group.vqa, texts, strict=True):
                    leaks = self.private and keyword_match(text, self.private)
                    self._answers[group.image.key, vqa.question] = None if leaks or not text else text
                bar.advance(1)
        self.dropped = sum(answer is None for answer in self._answers.values())

    def assume(self, groups: Sequence[ImageGroup]) -> None:
        """Takes the true answers for the model's own, where it cannot be asked; ``groups`` as for :meth:`prepare`."""
        self._answers = {(g.image.key, vqa.question): vqa.answer for g in groups for vqa in g.vqa if g.image}

    def state_dict(self) -> dict[str, Any]:
        """All answers, for a checkpoint: weights that are trained in full cannot be asked again."""
        return {"answers": [[*key, answer] for key, answer in self._answers.items()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up the answers of a run that was stopped."""
        self._answers = {(picture, question): answer for picture, question, answer in state["answers"]}
        self.dropped = sum(answer is None for answer in self._answers.values())

    def __len__(self) -> int:
        return len(self._answers)

    def answer(self, picture: Picture, question: str) -> str | None:
        """The answer to a question about a picture, both of which were prepared; ``None`` if it was dropped."""
        return self._answers[picture.key, question]
