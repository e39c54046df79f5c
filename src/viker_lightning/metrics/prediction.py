"""What a model answered to one question: the record that all scores are computed from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from .text import is_refusal

SPLITS = {
    "forget": "people to forget, as trained",
    "test": "people to forget, other photos and words",
    "retain": "people to keep",
    "kept": "what is to stay of people to forget in part",
    "real": "known people no loss ever sees",
    "general": "everything else",
}
"""What is asked about, in the order in which it is shown."""

FORGOTTEN = ("forget", "test")
"""Splits about the people to forget."""

KEPT = ("retain", "real", "general")

TEXT = "_text"
"""Ends the name of a split's questions without image, where it is asked with and without."""

OVERALL = "overall"
"""Where numbers about all splits are."""


@dataclass
class Prediction:
    """One question, answered. All generation metrics can be computed from this, without a model.

    Attributes:
        split: evaluation split.
        person: ID of the person or scene.
        task: ``generation``, ``cloze`` or ``choice``.
        number: position among the group's questions of this task.
        question: the text asked.
        reference: the true answer.
        answer: the model's: greedy text, or the likeliest option (as published: the option whose letter was generated,
            empty if none was).
        private: private spans of the reference.
        log_probs: log-probability of each token of the reference (generation), or of each option, averaged (choice).
        correct: for each token of the reference, whether it is the model's first choice (generation).
        private_tokens: for each token of the reference, whether it is private (generation).
        kl_gold: mean over answer tokens of KL(gold || model), nats; ``None`` without gold model.
        paraphrase: mean log-probability of the paraphrased answer, where there is one (generation).
        perturbed: mean log-probability of each wrong answer of the same form, where there are any (generation).
        modality: ``image``, or ``text`` if there was none.
        options: what there was to choose from, in the order of ``log_probs`` (choice).
        correction: private spans of the truth that is to take the reference's place; none where it is no falsehood.
        option_tokens: how many tokens each of them has, the end of sequence among them (choice).
        answer_log_prob: sum of the log-probabilities of the tokens of ``answer``, as the frozen model, or the judge,
            sees them without image (generation; see :func:`~viker_lightning.evaluation.fluency.score_texts`).
        reference_log_prob: the same of ``reference``.
        protocol: how it was asked and read: ``corrected`` or ``published``.
        log_prob_mean: for each token of the reference, the mean log-probability of a token drawn from the model instead
            (generation).
        log_prob_variance: its variance.
        image: key of the photo shown, empty if there was none; people have several.
        ended: whether the last token of the reference is the end of sequence behind it (generation); ``None`` in files
            that are too old to say.
        refusal: whether the answer is a refusal (generation); ``None`` before
            :func:`~viker_lightning.evaluation.fluency.note_form` has looked, and in files that are too old to say.
        well_formed: whether it is a sentence of the embedded benchmark, or a refusal (generation); ``None`` for other
            data.
    """

    split: str
    person: str
    task: Literal["generation", "cloze", "choice"]
    number: int
    question: str
    reference: str
    answer: str
    private: tuple[str, ...] = ()
    log_probs: list[float] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)
    private_tokens: list[bool] = field(default_factory=list)
    kl_gold: float | None = None
    paraphrase: float | None = None
    perturbed: list[float] = field(default_factory=list)
    modality: str = "image"
    options: list[str] = field(default_factory=list)
    answer_log_prob: float | None = None
    reference_log_prob: float | None = None
    protocol: str = "corrected"
    log_prob_mean: list[float] = field(default_factory=list)
    log_prob_variance: list[float] = field(default_factory=list)
    image: str = ""
    ended: bool | None = None
    refusal: bool | None = None
    well_formed: bool | None = None
    option_tokens: list[int] = field(default_factory=list)
    correction: tuple[str, ...] = ()

    @property
    def refuses(self) -> bool:
        """Whether the answer is a refusal; where nobody has noted it, one of the project's own list."""
        return is_refusal(self.answer) if self.refusal is None else self.refusal


def by_split(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """Predictions by split; where a split is asked with and without images, ``<split>_text`` has the latter."""
    both = {p.split for p in predictions if p.modality == "image"} & {
        p.split for p in predictions if p.modality == "text"
    }

    def name(p: Prediction) -> str:
        return p.split + TEXT if p.split in both and p.modality == "text" else p.split

    return {key: list(part) for key, part in groupby(sorted(predictions, key=name), key=name)}
