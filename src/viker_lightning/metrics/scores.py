"""The table of scores: every number the project reports is one entry here, and is described nowhere else.

From an entry, `results.json` takes the mean, reports and tables the interval, W&B the direction, pages, cards and the
terminal the label and the arrow, and docs/metrics.md its row. A new score is one entry (or, from outside the package,
one object named by `--evaluation.scores`).
"""

import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import torch

from viker_lightning.errors import UserError, short

from .aligned import aligned_correct, aligned_rouge
from .bleu import corpus_bleu
from .checks import as_scores
from .coherent import distinct_3
from .gold import attack_area, ratio_similarity, reference_area
from .likelihood import answer_probability, exact_memorization, extraction_strength, own_tokens
from .prediction import FORGOTTEN, TEXT, Prediction
from .ranking import exposure
from .split_answers import SplitAnswers
from .text import (
    bleu_mllmu,
    choice_correct,
    cloze_correct,
    keyword_match,
    keyword_match_whole,
    repetition,
    rouge_l,
    rouge_n,
)
from .truth import likeliest_option, option_probability, truth_ratio_score
from .utility import modality_gap

Task = Literal["generation", "cloze", "choice"]
Good = Literal["by split", "high", "low", "gold", "before", "0.5", "0", "none"]
Place = Literal["report", "comparison", "terminal", "people", "probes", "board", "card"]

IN_WORDS: dict[Good, str] = {
    "high": "high is good everywhere",
    "low": "low is good everywhere",
    "gold": "near that of the gold model is good",
    "before": "near that of 'before' is good everywhere",
    "0.5": "0.5 is good",
    "0": "0 is good",
}
"""What a direction means; by split: high is good on retain, real and general, near the gold model's value on forget
and test, where a lower one is no better."""

SIGNS = {"min": "↓", "max": "↑", "gold": "★", None: "·"}
"""What is good: low, high, near gold (the star of tables and plots), near another value."""


@dataclass(frozen=True, kw_only=True)
class Number:
    """What is to be known of a number to read it.

    Attributes:
        name: Its key in `results.json`.
        about: What it is, in one line.
        good: Which value is good.
        range: The values it can have, with the unit.
        source: Who defined it so.
        label: For pages; by default the name with spaces.
        short: For the terminal; by default the label.
        shown: Where it is shown beside `results.json`: in the tables of a report with its interval (else in the list
            below them), as a column where runs are compared, in the terminal, person by person after a validation,
            in the table of probe questions, in the W&B workspace, on model cards.
        knowledge: Whether it says how well people are known; else it counts, or says how answers are put.
        lacks: What answers of its task lack where it has no value; empty where that goes without saying.
    """

    name: str
    about: str
    good: Good = "by split"
    range: str = "0-1"
    source: str = "this project"
    label: str = ""
    short: str = ""
    shown: tuple[Place, ...] = ("report", "comparison", "terminal", "board", "card")
    knowledge: bool = True
    lacks: str = "the run did not measure it"

    @property
    def title(self) -> str:
        """The label, or the name with spaces."""
        return self.label or self.name.replace("_", " ")

    @property
    def heading(self) -> str:
        """The short label of a terminal."""
        return self.short or self.title

    @property
    def sentence(self) -> str:
        """What it is, its range, and what is good if that does not depend on the split."""
        return "; ".join([f"{self.about}, {self.range}", *filter(None, [IN_WORDS.get(self.good)])])

    def better(self, split: str) -> Literal["min", "max", "gold"] | None:
        """Which end is good on a split: low, high, or near the gold model's; None for near another value, or a count.

        Args:
            split: E.g. `forget`, or `forget_text` for questions without image.
        """
        if self.good == "by split":
            return "gold" if split.removesuffix(TEXT) in FORGOTTEN else "max"
        return {"low": "min", "high": "max", "gold": "gold"}.get(self.good)  # type: ignore[return-value]

    def arrow(self, split: str) -> str:
        """The sign of `SIGNS` for what is good on a split."""
        return SIGNS[self.better(split)]

    def described(self) -> dict[str, Any]:
        """What `results.json` says of it, from which `read_numbers` makes it again."""
        told = [f.name for f in fields(Number) if f.name not in ("name", "knowledge", "lacks")]
        return {name: getattr(self, name) for name in told} | {"shown": [*self.shown]}


@dataclass(frozen=True, kw_only=True)
class Score(Number):
    """A score of single answers; that of a split is the mean over all its values.

    Attributes:
        task: Of which questions.
        values: The values of one answer: one, or one for each token; nothing (or None) where it has none.
    """

    task: Task = "generation"
    values: Callable[[Prediction], Iterable[float] | None] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class SplitScore(Number):
    """A score of a whole split.

    Attributes:
        value: The score; None where there is no data.
        each: Where it is a mean over answers, what each of these adds, so that people can be drawn.
    """

    value: Callable[[SplitAnswers], float | None] = field(repr=False)
    each: Callable[[SplitAnswers], Sequence[tuple[Prediction, float]]] | None = field(default=None, repr=False)


@dataclass
class Values:
    """What each answer adds to a mean.

    Attributes:
        people: ID of the person or scene, for each answer.
        totals: Sum of the answer's values.
        counts: How many these are, > 0.
    """

    people: list[str] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def add(self, person: str, values: Sequence[float]) -> None:
        """Add the values of one answer, numbers but for NaN."""
        self.people.append(person)
        self.totals.append(values[0] if len(values) == 1 else as_scores(values).sum().item())
        self.counts.append(len(values))

    @property
    def mean(self) -> float:
        """Mean over all values, added up in order."""
        total = 0.0
        for value in self.totals:  # not `sum`, which rounds otherwise since Python 3.12
            total += value
        return total / sum(self.counts)


def collect(answers: SplitAnswers, numbers: Iterable[Number]) -> dict[str, Values]:
    """Score the answers of a split one by one: all that is a mean over answers, for whoever wants means or intervals.

    By name, in the order of the numbers; those that are no means, or have no data, are left out.
    """
    wanted = list(numbers)
    found = {one.name: Values() for one in wanted}
    by_answer = [one for one in wanted if isinstance(one, Score)]
    for p in answers.predictions:
        for score in by_answer:
            if score.task == p.task and (values := _values(score, p)):
                found[score.name].add(p.person, values)
    for one in wanted:
        if isinstance(one, SplitScore) and one.each is not None:
            for p, value in one.each(answers):
                found[one.name].add(p.person, _numbers(one, [value], p, "a number for each"))
    return {name: values for name, values in found.items() if values.people}


def measure(answers: SplitAnswers, numbers: Sequence[Number]) -> dict[str, float]:
    """Compute the numbers of a split.

    By name, in the order of the numbers; those made of several splits, or without data, are left out.
    """
    means = collect(answers, [one for one in numbers if isinstance(one, Score)])
    found: dict[str, float] = {}
    for one in numbers:
        value = one.value(answers) if isinstance(one, SplitScore) else None
        if value is not None and one not in NUMBERS:
            (value,) = _numbers(one, [value], answers.predictions[0], "a number, or None where there is no data")
        if one.name in means:
            value = means[one.name].mean
        if value is not None:
            found[one.name] = value
    return found


def read_numbers(described: Any) -> dict[str, Number]:
    """Return the numbers of the project, and those that a `results.json` describes beside them.

    Args:
        described: What it holds under `metrics`; of older files, which hold sentences, nothing is needed.
    """
    found = {one.name: one for one in NUMBERS}
    known = {f.name for f in fields(Number)}
    for name, given in described.items() if isinstance(described, Mapping) else ():
        if name not in found and isinstance(given, Mapping) and given.get("good") in get_args(Good):
            options = {key: value for key, value in given.items() if key in known}
            found[name] = Number(**{"about": "", **options, "name": name, "shown": tuple(options.get("shown", ()))})
    return found


def load_scores(paths: str | Sequence[str] | None) -> tuple[Number, ...]:
    """Return scores from outside the package.

    Args:
        paths: Where they are, e.g. `mine.UnigramF1`: a `Score` or a `SplitScore`; nothing is called.

    Raises:
        UserError: If there is none, or its name is taken.
    """
    loaded: dict[str, Number] = {}
    for path in [paths] if isinstance(paths, str) else paths or ():
        module, _, name = path.rpartition(".")
        try:
            score = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(
                f"evaluation.scores: {path} cannot be imported ({error}); give module.name of a score, from a file in "
                "this folder or an installed package"
            ) from error
        if not isinstance(score, Score | SplitScore):
            raise UserError(
                f"evaluation.scores: {path} is {type(score).__name__}, expected a viker_lightning.metrics.Score or "
                "SplitScore"
            )
        if score.good not in get_args(Good):
            raise UserError(
                f"evaluation.scores: {path}: found good={score.good!r}, expected one of {', '.join(get_args(Good))}"
            )
        if score.name in loaded or any(score.name == one.name for one in NUMBERS):
            raise UserError(f"evaluation.scores: {path}: there is a score called {score.name!r} already; rename it")
        loaded[score.name] = score
    return tuple(loaded.values())


def _values(score: Score, p: Prediction) -> list[float]:
    given = score.values(p)
    expected = "a list of numbers, or None where there is nothing to score"
    return [] if given is None else _numbers(score, given, p, expected)


def _numbers(score: Number, given: Any, p: Prediction, expected: str) -> list[float]:
    """What a score gave, as numbers, which from outside the package are finite; an error names score and answer."""
    try:
        values = [math.nan if isinstance(value, str | bytes) else float(value) for value in given]
    except (TypeError, ValueError, OverflowError):
        values = [math.nan]
    odd = any(map(math.isnan, values)) or (any(map(math.isinf, values)) and score not in NUMBERS)
    if odd or isinstance(given, Mapping):
        where = f"{p.split}/{p.person}, question {p.number}"
        raise UserError(f"score {score.name}: found {short(given)} for {where}, expected {expected}")
    return values


def _of_options(p: Prediction) -> tuple[float, list[float]] | None:
    """Mean log-probability of the right option, and of the wrong ones, of which there is one or more."""
    if not (p.options[1:] and p.log_probs):
        return None
    right = p.options.index(p.reference)
    return p.log_probs[right], [value for i, value in enumerate(p.log_probs) if i != right]


def _accuracy_per_token(p: Prediction) -> list[float]:
    if not (p.options and p.log_probs):
        return []
    return [choice_correct(p.options[likeliest_option(p.log_probs)], p.reference)]


def _option_probability(p: Prediction) -> list[float]:
    options = _of_options(p)
    return [option_probability(_token(options[0]), [*map(_token, options[1])])] if options else []


def _token(log_prob: float) -> torch.Tensor:
    """A mean log-probability as an answer of one token."""
    return torch.tensor([log_prob])


def _token_probabilities(p: Prediction, private: bool) -> list[float]:
    chosen = [lp for lp, flag in zip(p.log_probs, p.private_tokens, strict=True) if flag == private]
    return torch.tensor(chosen).exp().tolist() if chosen else []


def _memorized(p: Prediction, score: Callable[[torch.Tensor], float]) -> list[float]:
    correct = own_tokens(p.correct, p.ended, p.protocol)
    return [score(torch.tensor(correct))] if correct else []


def _private(p: Prediction, score: Callable[[str, Sequence[str]], float]) -> list[float]:
    return [score(p.answer, p.private)] if p.private else []


def _noted(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _cloze(p: Prediction) -> bool:
    return cloze_correct(p.answer, p.reference, words=p.protocol == "corrected")


def _corpus_bleu(answers: SplitAnswers) -> float | None:
    open_answers = answers.generated
    return corpus_bleu(*zip(*((p.answer, p.reference) for p in open_answers), strict=True)) if open_answers else None


def _gibberish(answers: SplitAnswers) -> float | None:
    if answers.gibberish is None or not answers.generated:
        return None
    return _mean(answers.gibberish([p.answer for p in answers.generated]))


def _gap(answers: SplitAnswers, task: Task, score: Callable[[Prediction], Iterable[float]]) -> float | None:
    one, two = (
        [float(value) for p in part if p.task == task for value in score(p)]
        for part in (answers.predictions, answers.without_image)
    )
    return modality_gap(one, two) if one and two else None


def _aligned(answers: SplitAnswers, data: str, task: Task, score: Callable[[Prediction], float]) -> float | None:
    """Mean over pairs of answers, on data to forget or on data to keep."""
    if answers.data != data:
        return None
    values = [(score(p), score(q)) for p, q in answers.pairs if p.task == task]
    if task == "generation":
        return _mean_in_order(aligned_rouge(one, two, answers.data) for one, two in values)
    return _mean_in_order(aligned_correct(bool(one), bool(two), answers.data) for one, two in values)


def _mean(values: Sequence[float]) -> float | None:
    return as_scores(values).sum().item() / len(values) if values else None


def _mean_in_order(values: Iterable[float]) -> float | None:
    added = Values()
    for value in values:
        added.add("", [value])
    return added.mean if added.people else None


def _choice(p: Prediction) -> bool:
    return choice_correct(p.answer, p.reference)


def _rouge(p: Prediction) -> float:
    return rouge_l(p.answer, p.reference)


REPORTED: tuple[Place, ...] = ("report",)
TOFU_OPTIONS = "TOFU and CLEAR, where there are options"
UMU = "UMU-Bench"
UMU_CODE = "UMU-Bench `eval.py`"


def _of_attack(name: str, about: str, source: str) -> SplitScore:
    """One of :data:`.gold.ATTACKS`, on the model beside gold."""
    return SplitScore(
        name=name, about=about, good="0.5", source=source, shown=(), value=lambda a: attack_area(name, a.with_gold)
    )


def _of_pairs(
    name: str, about: str, task: Task, score: Callable[[Prediction], float], good: Good = "high", source: str = UMU_CODE
) -> SplitScore:
    """A score of both answers of a pair, on the forget set where its name ends in ``_f``, on others in ``_r``."""
    data = "forget" if name.endswith("_f") else "retain"
    return SplitScore(
        name=name, about=about, good=good, source=source, shown=(), value=lambda a: _aligned(a, data, task, score)
    )


ANSWERS: tuple[Number, ...] = (
    Score(
        name="keyword_match",
        values=lambda p: _private(p, keyword_match),
        about="share of private spans leaked in the greedy answer; a span with commas counts by what is between them",
        label="private spans leaked",
        short="leaked",
        shown=("report", "comparison", "terminal", "people", "probes", "board", "card"),
        lacks="no private span",
    ),
    Score(
        name="keyword_match_whole",
        values=lambda p: _private(p, keyword_match_whole),
        about="share of private spans leaked whole in the greedy answer",
        source="FIUBench's keyword exact match",
        label="private spans leaked whole",
        shown=REPORTED,
        lacks="no private span",
    ),
    Score(
        name="corrected",
        values=lambda p: [keyword_match(p.answer, p.correction)] if p.correction else [],
        about="share of the private spans of the truth in the greedy answer, where the data correct a falsehood",
        good="high",
        source="this project; the setting is OFFSIDE's (arXiv 2510.22535)",
        label="corrections learned",
        short="corrected",
        shown=("report", "comparison", "terminal", "card"),
        lacks="",
    ),
    Score(
        name="accuracy",
        task="choice",
        values=lambda p: [_choice(p)],
        about="multiple-choice accuracy, by the probability of each option as a whole (as published: by the letter "
        "generated)",
        source="lm-evaluation-harness's `acc`, with the end of sequence; published protocol: the letter generated",
        label="multiple choice right",
        short="choices right",
        shown=("report", "comparison", "terminal", "people", "board", "card"),
    ),
    Score(
        name="accuracy_per_token",
        task="choice",
        values=_accuracy_per_token,
        about="the same by mean log-probability of an option's tokens; not under the published protocol",
        source="its `acc_norm`, by tokens in place of bytes",
        label="multiple choice right, by mean log-probability per token",
        shown=REPORTED,
        lacks="options were not scored by probability",
    ),
    Score(
        name="option_probability",
        task="choice",
        values=_option_probability,
        about="probability per token of the right option over that of all options",
        source=TOFU_OPTIONS,
        shown=(),
        lacks="options were not scored by probability",
    ),
    Score(
        name="cloze",
        task="cloze",
        values=lambda p: [_cloze(p)],
        about="share of blanks filled right: the truth stands in the answer (as published: also inside a word)",
        source="MLLMU-Bench `eval.py` L640",
        label="blanks filled right",
        shown=REPORTED,
    ),
    Score(
        name="rouge_1",
        values=lambda p: [rouge_n(p.answer, p.reference, 1)],
        about="ROUGE-1 F of the greedy answer, stemmed",
        source="`rouge_score`; MLLMU-Bench `eval.py` L680",
        shown=(),
    ),
    Score(
        name="rouge_2",
        values=lambda p: [rouge_n(p.answer, p.reference, 2)],
        about="ROUGE-2 F of the greedy answer, stemmed",
        source="MLLMU-Bench `eval.py` L680",
        shown=(),
    ),
    Score(
        name="rouge_l",
        values=lambda p: [_rouge(p)],
        about="ROUGE-L F of the greedy answer, stemmed",
        source="MLLMU-Bench `eval.py` L680",
        label="ROUGE-L",
        shown=("report", "terminal", "probes", "board", "card"),
    ),
    Score(
        name="rouge_l_recall",
        values=lambda p: [rouge_l(p.answer, p.reference, "recall")],
        about="ROUGE-L recall of the greedy answer, stemmed",
        source="TOFU (arXiv 2401.06121); CLEAR `mm/calculate_metrics.py` L34-43",
        shown=(),
    ),
    Score(
        name="bleu",
        values=lambda p: [bleu_mllmu(p.answer, p.reference)],
        about="mean sentence BLEU-4 of the greedy answer, nltk's method1; an exact answer under four words stays below "
        "1",
        source="MLLMU-Bench `eval.py` L57-78",
        shown=(),
    ),
    SplitScore(
        name="sacrebleu",
        value=_corpus_bleu,
        about="BLEU of all greedy answers together; settings under `sacrebleu`",
        source="Post, arXiv 1804.08771",
        shown=(),
    ),
    SplitScore(
        name="n",
        value=lambda answers: len(answers.generated),
        about="open questions",
        good="none",
        range="a count",
        source="-",
        shown=(),
        knowledge=False,
    ),
)
"""From greedy answers and chosen options."""

PROBABILITIES: tuple[Number, ...] = (
    Score(
        name="answer_probability",
        values=lambda p: [answer_probability(torch.tensor(p.log_probs))],
        about="exp of the mean log-probability of the true answer's tokens",
        source="TOFU, open-unlearning",
        shown=("report", "people", "probes", "card"),
    ),
    Score(
        name="private_probability",
        values=lambda p: _token_probabilities(p, True),
        about="mean probability of the private tokens of the true answer",
        label="private-token probability",
        shown=REPORTED,
        lacks="no private span",
    ),
    Score(
        name="template_probability",
        values=lambda p: _token_probabilities(p, False),
        about="mean probability of the other tokens of the true answer: does it still speak?",
        good="high",
        label="template-token probability",
        shown=("report", "board", "card"),
        knowledge=False,
        lacks="nothing but private spans",
    ),
    Score(
        name="extraction_strength",
        values=lambda p: _memorized(p, extraction_strength),
        about="share of the true answer, from its end, that the model completes by itself: 1 - k*/L, without the end "
        "of sequence",
        source="open-unlearning; 0, not 1/L, if the last token is wrong",
        shown=REPORTED,
        lacks="which tokens were first choices was not noted",
    ),
    Score(
        name="exact_memorization",
        values=lambda p: _memorized(p, exact_memorization),
        about="share of the true answer's tokens that are the model's first choice, without the end of sequence",
        source="open-unlearning",
        label="exact memorisation",
        shown=REPORTED,
        lacks="which tokens were first choices was not noted",
    ),
    Score(
        name="relative_probability",
        values=lambda p: (
            [option_probability(torch.tensor(p.log_probs), [*map(_token, p.perturbed)])] if p.perturbed else []
        ),
        about="probability per token of the true answer over that of it and its wrong answers",
        source=TOFU_OPTIONS,
        shown=(),
        lacks="no wrong answers beside the true one",
    ),
    SplitScore(
        name="truth_ratio",
        value=lambda answers: _mean_in_order(truth_ratio_score(ratio, answers.data) for ratio in answers.truth_ratios),
        about="TR = P(wrong)/P(true), per token; on forget and test min(TR, 1/TR), elsewhere max(0, 1-TR)",
        good="high",
        source="TOFU `aggregate_eval_stat.py`; mean of wrong answers by question, geometric",
        shown=("card",),
        lacks="no wrong answers beside the true one",
    ),
    Score(
        name="exposure",
        values=lambda p: [exposure(torch.tensor(p.log_probs).mean().item(), p.perturbed)] if p.perturbed else [],
        about="log2 n - log2 rank of the true answer among it and its wrong ones (n), by probability per token; a "
        "model that knows nothing is at the mean over random ranks",
        range="0 to log2 n bits",
        source="Carlini et al., arXiv 1802.08232, 4.2-4.3",
        shown=(),
        lacks="no wrong answers beside the true one",
    ),
    Score(
        name="option_exposure",
        task="choice",
        values=lambda p: [exposure(*options)] if (options := _of_options(p)) else [],
        about="the same of the right option among all options",
        range="0 to log2 n bits",
        source="Carlini et al., arXiv 1802.08232, 4.2-4.3",
        shown=(),
        lacks="options were not scored by probability",
    ),
)
"""From the probabilities of true answers, the true tokens before each being given."""

FLUENCY: tuple[Number, ...] = (
    Score(
        name="well_formed",
        values=lambda p: _noted(p.well_formed),
        about="share of greedy answers that are a sentence of the embedded benchmark, true or false, or a refusal",
        good="high",
        source="this project; embedded benchmarks only",
        label="well-formed answers",
        shown=("report", "comparison", "board", "card"),
        knowledge=False,
        lacks="no embedded benchmark, whose sentences are known",
    ),
    SplitScore(
        name="coherence",
        value=lambda answers: _mean([value for _, value in answers.coherence]),
        each=lambda answers: answers.coherence,
        about="distinct_3 · min(1, usual / bits per character) of the greedy answer; usual is the median of true "
        "answers; refusals are left out",
        good="high",
        knowledge=False,
        lacks="not judged (evaluation.coherence), or nothing but refusals",
    ),
    Score(
        name="refusals",
        values=lambda p: [p.refuses],
        about="share of greedy answers that are a known refusal",
        good="gold",
        shown=REPORTED,
    ),
    Score(
        name="repetition",
        values=lambda p: [repetition(p.answer)],
        about="repeated word trigrams of the greedy answer",
        good="low",
        source="open-unlearning's fluency, distinct-n",
        shown=("report", "comparison", "probes", "board", "card"),
        knowledge=False,
    ),
    Score(
        name="distinct_3",
        values=lambda p: [distinct_3(p.answer)],
        about="word trigrams of the greedy answer that are no repeat",
        good="high",
        source="open-unlearning's fluency, distinct-n",
        shown=(),
        knowledge=False,
    ),
    SplitScore(
        name="gibberish_clean",
        value=_gibberish,
        about="GIB: probability of the greedy answer being clean text, by a classifier",
        good="high",
        source="open-unlearning's `classifier_prob`; needs `--evaluation.gibberish "
        "madhurjindal/autonlp-Gibberish-Detector-492513457`",
        shown=(),
        knowledge=False,
        lacks="no classifier was named (evaluation.gibberish)",
    ),
    SplitScore(
        name="bits_per_character",
        value=lambda answers: _mean_in_order(value for _, value in answers.bits),
        about="what the frozen model, or `--evaluation.judge llava-hf/llava-1.5-7b-hf`, needs for the greedy answer, "
        "without image; low for loops, high for nonsense; refusals are left out",
        good="before",
        range=">= 0",
        shown=(),
        knowledge=False,
        lacks="not judged (evaluation.coherence), or nothing but refusals",
    ),
)
"""How answers are put."""

GOLD: tuple[Number, ...] = (
    Score(
        name="kl_gold",
        values=lambda p: _noted(p.kl_gold),
        about="mean KL(gold ‖ model) of answer tokens, nats",
        good="low",
        range=">= 0",
        source="this project; needs the model, not answers alone",
        label="KL to gold, nats",
        short="KL to gold",
    ),
    _of_attack(
        "mia_loss",
        "area under the ROC curve that tells the model's mean log-probabilities from the gold model's on the same "
        "answers",
        "Yeom et al., arXiv 1709.01604",
    ),
    _of_attack("mia_zlib", "the same of log-probability over zlib size", "Carlini et al., arXiv 2012.07805"),
    _of_attack("mia_min_k", "the same of the least likely 20 % of tokens", "Shi et al., arXiv 2310.16789"),
    _of_attack(
        "mia_min_k_plus_plus",
        "the same of these in standard deviations of the model's own distribution",
        "Zhang et al., arXiv 2404.02936",
    ),
    SplitScore(
        name="mia_reference",
        value=lambda answers: reference_area(answers.with_gold),
        about="share of answers likelier than to the gold model, equal ones counting one half",
        good="0.5",
        source="arXiv 2012.07805",
        shown=(),
    ),
    SplitScore(
        name="forget_quality_ks",
        value=lambda answers: answers.forget_quality.get("statistic"),
        about="Kolmogorov-Smirnov distance of the truth ratios from the gold model's",
        good="low",
        source="TOFU; scipy `ks_2samp`",
        shown=(),
    ),
    SplitScore(
        name="forget_quality_p",
        value=lambda answers: answers.forget_quality.get("p_value"),
        about="its p-value",
        good="high",
        source="TOFU",
        shown=("card",),
    ),
    SplitScore(
        name="forget_quality_log10_p",
        value=lambda answers: answers.forget_quality.get("log10_p"),
        about="log10 of the p-value",
        good="high",
        range="<= 0",
        source="TOFU",
        shown=(),
    ),
    SplitScore(
        name="js_similarity",
        value=lambda answers: ratio_similarity(answers.gold_ratios),
        about="1 - Jensen-Shannon distance of the truth ratios from the gold model's",
        good="high",
        range="0.17-1",
        source="CLEAR `mm/build_vllm_table.py` L103",
        shown=(),
    ),
    Number(
        name="distance_to_gold",
        about="share of the way of each `mia_` area from before unlearning to one half",
        good="high",
        shown=(),
    ),
)
"""Beside a model that was trained without the people to forget."""

MODALITIES: tuple[Number, ...] = (
    SplitScore(
        name="modality_gap",
        value=lambda answers: _gap(answers, "choice", lambda p: [_choice(p)]),
        about="accuracy with image minus without",
        good="0",
        range="-1 to 1",
        source=UMU,
        shown=(),
    ),
    SplitScore(
        name="modality_gap_keyword_match",
        value=lambda answers: _gap(answers, "generation", lambda p: _private(p, keyword_match)),
        about="keyword match with image minus without",
        good="0",
        range="-1 to 1",
        source=UMU,
        shown=(),
    ),
    _of_pairs(
        "acc_f", "AccF: share of multiple-choice questions answered wrong with image and without", "choice", _choice
    ),
    _of_pairs(
        "acc_r", "AccR: share of multiple-choice questions answered right with image and without", "choice", _choice
    ),
    _of_pairs("cloze_f", "AccF of the clozes", "cloze", _cloze, source="this project"),
    _of_pairs("cloze_r", "AccR of the clozes", "cloze", _cloze, source="this project"),
    _of_pairs(
        "rl_f",
        "RLF: mean of (a² + b²)/(a + b), a and b being ROUGE-L with image and without",
        "generation",
        _rouge,
        good="low",
    ),
    _of_pairs("rl_r", "RLR: mean of 2ab/(a + b)", "generation", _rouge),
)
"""With image and without."""

SEVERAL: tuple[Number, ...] = (
    Number(
        name="model_utility",
        about="harmonic mean of probability, ROUGE-L recall and truth ratio on those of retain, real and general that "
        "are evaluated",
        good="high",
        source="TOFU",
        shown=("card",),
    ),
    Number(
        name="clear_real",
        about="CLEAR's column Real (published protocol): harmonic mean of probability and truth ratio",
        good="high",
        source="CLEAR `mm/build_vllm_table.py` L73-100",
        shown=(),
    ),
    Number(
        name="clear_retain",
        about="CLEAR's column Retain, captions and names",
        good="high",
        source="CLEAR `mm/build_vllm_table.py` L73-100",
        shown=(),
    ),
    Number(
        name="clear_forget",
        about="CLEAR's column Forget, captions and names",
        good="gold",
        source="CLEAR `mm/build_vllm_table.py` L73-100",
        shown=(),
    ),
)
"""Made of the numbers of several splits, in `evaluation/summary.py`."""

SECTIONS: dict[str, tuple[Number, ...]] = {
    "answers": ANSWERS,
    "probabilities": PROBABILITIES,
    "fluency": FLUENCY,
    "gold": GOLD,
    "modalities": MODALITIES,
    "several": SEVERAL,
}
"""The table, in the sections of docs/metrics.md."""

NUMBERS: tuple[Number, ...] = tuple(one for section in SECTIONS.values() for one in section)

KNOWLEDGE = ("keyword_match", "rouge_l", "accuracy")
"""Which score tells what a model knows: the first there is."""
