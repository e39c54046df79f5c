"""From predictions to numbers: one place, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from viker_lightning import metrics
from viker_lightning.metrics.prediction import Prediction

from .gold import check_gold, compare
from .protocols import CORRECTED, Protocol
from .truth import data_of, ratios

Numbers = dict[str, float]

OVERALL = "overall"
"""Where numbers about all splits are."""

KEPT = ("retain", "real", "general")


def summarise(
    predictions: Iterable[Prediction],
    gold: Sequence[Prediction] = (),
    gibberish: Callable[[Sequence[str]], list[float]] | None = None,
    protocol: Protocol = CORRECTED,
    paired: bool = False,
) -> dict[str, Numbers]:
    """Computes every metric for every split.

    Args:
        predictions: in any order, each question once.
        gold: what the model retrained without the forget set answered to the same questions.
        gibberish: texts to probabilities of being clean, such as a
            :class:`~viker_lightning.metrics.GibberishClassifier`.
        protocol: the one the predictions were made with.
        paired: whether a person's questions are the same with image and without, number by number, so that both
            answers can be looked at together (UMU-Bench).

    Returns:
        For each split, metrics (see :data:`~viker_lightning.evaluation.directions.DIRECTIONS`) and ``n``, the number of
        open questions; a metric without data is left out. Where a split is asked with and without images, its name
        stands for the questions with image and ``<split>_text`` for the others. ``overall`` has what is made of several
        splits, if anything.

    Raises:
        UserError: if the gold model answered none of the questions.
    """
    found = list(predictions)
    check_gold(found, gold)
    parts = by_split(found)
    summary = {key: numbers(part, gibberish, protocol) | compare(part, gold, protocol) for key, part in parts.items()}
    for split in [name for name in parts if f"{name}_text" in parts]:
        summary[split] |= _gaps(parts[split], parts[f"{split}_text"])
        if paired:
            summary[split] |= _aligned(parts[split], parts[f"{split}_text"])
    overall = protocol.overall(found)
    if overall is None:
        overall = _utility(summary)
    return summary | ({OVERALL: overall} if overall else {})


def by_split(found: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """Predictions by split; where a split is asked with and without images, ``<split>_text`` has the latter."""
    both = {p.split for p in found if p.modality == "image"} & {p.split for p in found if p.modality == "text"}

    def name(p: Prediction) -> str:
        return f"{p.split}_text" if p.split in both and p.modality == "text" else p.split

    return {key: list(part) for key, part in groupby(sorted(found, key=name), key=name)}


def numbers(
    found: Sequence[Prediction],
    gibberish: Callable[[Sequence[str]], list[float]] | None = None,
    protocol: Protocol = CORRECTED,
) -> Numbers:
    """The numbers of questions of one split."""
    generated = [p for p in found if p.task == "generation"]
    probabilities = {True: metrics.Mean(), False: metrics.Mean()}
    scores: dict[str, Any] = {
        "accuracy": metrics.Accuracy(),
        "accuracy_per_token": metrics.Accuracy(),
        "option_probability": metrics.OptionProbability(),
        "cloze": metrics.Cloze(found[0].protocol == CORRECTED.name),
        "rouge_1": metrics.RougeN(1),
        "rouge_2": metrics.RougeN(2),
        "rouge_l": metrics.RougeL(),
        "rouge_l_recall": metrics.RougeLRecall(),
        "bleu": metrics.BleuMLLMU(),
        "sacrebleu": metrics.CorpusBleu(),
        "keyword_match": metrics.KeywordMatch(),
        "keyword_match_whole": metrics.KeywordMatchWhole(),
        "answer_probability": metrics.AnswerProbability(),
        "relative_probability": metrics.OptionProbability(),
        "truth_ratio": metrics.TruthRatio(data_of(found[0].split)),
        "exposure": metrics.Exposure(),
        "option_exposure": metrics.Exposure(),
        "private_probability": probabilities[True],
        "template_probability": probabilities[False],
        "exact_memorization": metrics.ExactMemorization(),
        "extraction_strength": metrics.ExtractionStrength(),
        "repetition": metrics.Repetition(),
        "distinct_3": metrics.Mean(),
        "refusals": metrics.Mean(),
        "well_formed": metrics.Mean(),
        "kl_gold": metrics.Mean(),
    }
    for p in found:
        if p.task == "choice":
            _add_choice(scores, p)
        elif p.task == "cloze":
            scores["cloze"].update(p.answer, p.reference)
    for p in generated:
        for name in ("rouge_1", "rouge_2", "rouge_l", "rouge_l_recall", "bleu", "sacrebleu"):
            scores[name].update(p.answer, p.reference)
        scores["repetition"].update(p.answer)
        scores["distinct_3"].update(metrics.distinct_3(p.answer))
        scores["refusals"].update(float(refuses(p)))
        if p.well_formed is not None:
            scores["well_formed"].update(float(p.well_formed))
        if p.private:
            for name in ("keyword_match", "keyword_match_whole"):
                scores[name].update(p.answer, list(p.private))
        log_probs = torch.tensor(p.log_probs)
        scores["answer_probability"].update(log_probs)
        if p.perturbed:
            scores["relative_probability"].update(log_probs, _means(p.perturbed))
            scores["exposure"].update(log_probs.mean().item(), p.perturbed)
        if correct := metrics.own_tokens(p.correct, p.ended, p.protocol):
            scores["exact_memorization"].update(torch.tensor(correct))
            scores["extraction_strength"].update(torch.tensor(correct))
        for private, mean in probabilities.items():
            chosen = [lp for lp, flag in zip(p.log_probs, p.private_tokens, strict=True) if flag == private]
            if chosen:
                mean.update(torch.tensor(chosen).exp())
        if p.kl_gold is not None:
            scores["kl_gold"].update(p.kl_gold)
    for _, ratio in ratios(generated, protocol):
        scores["truth_ratio"].update(ratio)
    if gibberish is not None and generated:
        scores["gibberish_clean"] = metrics.Gibberish(gibberish)
        scores["gibberish_clean"].update([p.answer for p in generated])
    return _computed(scores) | _fluency(generated) | {"n": len(generated)}


def _computed(scores: dict[str, Any]) -> Numbers:
    """What was measured; every process has all predictions, so that none is to be counted once for each process."""
    return {name: float(metric.alone().compute()) for name, metric in scores.items() if metric.update_called}


def _means(log_probs: Iterable[float]) -> list[Tensor]:
    """Mean log-probabilities as answers of one token."""
    return [torch.tensor([value]) for value in log_probs]


def _add_choice(scores: dict[str, Any], p: Prediction) -> None:
    scores["accuracy"].update(p.answer, p.reference)
    if p.options and p.log_probs:
        scores["accuracy_per_token"].update(p.options[metrics.likeliest_option(p.log_probs)], p.reference)
        right, values = p.options.index(p.reference), _means(p.log_probs)
        scores["option_probability"].update(values[right], [v for i, v in enumerate(values) if i != right])
        wrong = [value for i, value in enumerate(p.log_probs) if i != right]
        if wrong:
            scores["option_exposure"].update(p.log_probs[right], wrong)


def refuses(p: Prediction) -> bool:
    """Whether an answer is a refusal; a file that is too old to say knows those of the project's own list."""
    return metrics.is_refusal(p.answer) if p.refusal is None else p.refusal


def _fluency(generated: Sequence[Prediction]) -> Numbers:
    """Coherence by the frozen model, where it has read the answers, of those that are no refusals."""
    known = [p for p in generated if p.reference_log_prob is not None]
    read = [p for p in known if not refuses(p)]
    said = [p for p in read if p.answer_log_prob is not None and p.answer.strip()]
    if not said:
        return {}
    usual = metrics.usual_bits([p.reference for p in known], [p.reference_log_prob or 0.0 for p in known])
    if not usual:
        return {}
    scores = {"bits_per_character": metrics.Mean(), "coherence": metrics.Coherence(usual)}
    for p in said:
        scores["bits_per_character"].update(metrics.bits_per_character(p.answer, p.answer_log_prob or 0.0))
    unread = 0.0  # where nothing but white space, or a token that stands for an image, is said
    scores["coherence"].update(
        [p.answer if p.answer_log_prob is not None else "" for p in read], [p.answer_log_prob or unread for p in read]
    )
    return _computed(scores)


def _gaps(with_image: Sequence[Prediction], text: Sequence[Prediction]) -> Numbers:
    """What the image makes of a split's questions."""
    scores = {"modality_gap": metrics.ModalityGap(), "modality_gap_keyword_match": metrics.ModalityGap()}
    measures = {"modality_gap": _chosen_right, "modality_gap_keyword_match": _keywords}
    for name, measure in measures.items():
        one, two = ([value for p in part if (value := measure(p)) is not None] for part in (with_image, text))
        if one and two:
            scores[name].update(one, two)
    return _computed(scores)


def _chosen_right(p: Prediction) -> float | None:
    return float(metrics.choice_correct(p.answer, p.reference)) if p.task == "choice" else None


def _keywords(p: Prediction) -> float | None:
    return metrics.keyword_match(p.answer, p.private) if p.task == "generation" and p.private else None


def _aligned(with_image: Sequence[Prediction], text: Sequence[Prediction]) -> Numbers:
    """UMU-Bench's numbers about the same questions with image and without, of one split."""
    others = {(p.person, p.task, p.number): p for p in text}
    pairs = [(p, others[key]) for p in with_image if (key := (p.person, p.task, p.number)) in others]
    data = data_of(with_image[0].split)
    letter = data[0]
    scores: dict[str, Any] = {
        f"acc_{letter}": metrics.AlignedAccuracy(data),
        f"cloze_{letter}": metrics.AlignedAccuracy(data),
        f"rl_{letter}": metrics.AlignedRouge(data),
    }
    right: dict[str, Callable[[str, str], bool]] = {
        "choice": metrics.choice_correct,
        "cloze": partial(metrics.cloze_correct, words=with_image[0].protocol == CORRECTED.name),
    }
    for pair in pairs:
        task = pair[0].task
        if task == "generation":
            one, two = (metrics.rouge_l(p.answer, p.reference) for p in pair)
            scores[f"rl_{letter}"].update(one, two)
        else:
            name = "acc" if task == "choice" else "cloze"
            scores[f"{name}_{letter}"].update(*(right[task](p.answer, p.reference) for p in pair))
    return _computed(scores)


def _utility(summary: dict[str, Numbers]) -> Numbers:
    """TOFU's model utility, of the numbers there are."""
    values = {}
    for split in KEPT:
        there = summary.get(split, {})
        # TOFU and CLEAR weigh the answer against wrong ones only where these are options: real faces, world facts.
        relative = split != "retain" and "relative_probability" in there
        for name in ("relative_probability" if relative else "answer_probability", "rouge_l_recall", "truth_ratio"):
            if name in there:
                values[f"{split}/{name}"] = there[name]
    return {"model_utility": metrics.model_utility(values)} if values else {}
