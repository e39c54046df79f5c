"""Means over samples: what they add up, what they refuse, and that two processes give the value of one."""

from __future__ import annotations

import math
import warnings
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import sacrebleu
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torchmetrics import Metric

from viker_lightning import metrics as m

ANSWERS = ["Ada Voss lives in Rio", "US US US US US", "", "born in 1990", "a painter"]
TRUTHS = ["Ada Voss lives in Lima", "She paints houses", "Rio", "born in 1990", "A painter"]
SPANS = [["Ada Voss", "Lima"], ["houses"], ["Rio"], ["1990"], ["painter", "Rio", "1990"]]
LOG_PROBS = [-torch.arange(1.0, n + 2) for n in range(5)]
CORRECT = [torch.tensor([n % 2 == 0] + [True] * n) for n in range(5)]

WRONG = [[-torch.rand(n + 1, generator=torch.Generator().manual_seed(n)) - k for k in (1, n, 3)] for n in range(5)]
TRUTH_RATIOS = [0.1, 0.4, 0.4, 2.0, 3.0]


FLAGS = [True, False, True, False, False], [True, True, False, False, True]
ROUGES = [1.0, 0.5, 0.0, 0.0, 0.2], [1.0, 0.1, 0.4, 0.0, 0.0]


def clean(texts: list[str]) -> list[float]:
    """What a classifier of gibberish might say."""
    return [1 / (1 + len(text)) for text in texts]


# Class, one list per argument of update, score of one sample.
CASES: list[tuple[Any, tuple[list, ...], Any]] = [
    (m.RougeL, (ANSWERS, TRUTHS), m.rouge_l),
    (m.BleuMLLMU, (ANSWERS, TRUTHS), m.bleu_mllmu),
    (m.KeywordMatch, (ANSWERS, SPANS), m.keyword_match),
    (m.KeywordMatchWhole, (ANSWERS, SPANS), m.keyword_match_whole),
    (m.Cloze, (ANSWERS, TRUTHS), m.cloze_correct),
    (m.Accuracy, (["A", None, "b", "C", "D"], list("ABBDD")), m.choice_correct),
    (m.Repetition, (ANSWERS,), m.repetition),
    (m.AnswerProbability, (LOG_PROBS,), m.answer_probability),
    (m.ExtractionStrength, (CORRECT,), m.extraction_strength),
    (m.ExactMemorization, (CORRECT,), m.exact_memorization),
    (partial(m.RougeN, 1), (ANSWERS, TRUTHS), lambda p, t: m.rouge_n(p, t, 1)),
    (partial(m.RougeN, 2), (ANSWERS, TRUTHS), lambda p, t: m.rouge_n(p, t, 2)),
    (m.RougeLRecall, (ANSWERS, TRUTHS), lambda p, t: m.rouge_l(p, t, "recall")),
    (partial(m.TruthRatio, "forget"), (TRUTH_RATIOS,), lambda ratio: m.truth_ratio_score(ratio, "forget")),
    (partial(m.TruthRatio, "retain"), (TRUTH_RATIOS,), lambda ratio: m.truth_ratio_score(ratio, "retain")),
    (partial(m.Coherence, 1.5), (ANSWERS, [-9.0, -1.0, -2.0, -30.0, -0.5]), lambda t, lp: m.coherence(t, lp, 1.5)),
    (partial(m.Gibberish, clean), (ANSWERS,), lambda text: clean([text])[0]),
    (partial(m.AlignedAccuracy, "forget"), FLAGS, lambda a, b: not a and not b),
    (partial(m.AlignedAccuracy, "retain"), FLAGS, lambda a, b: a and b),
    (partial(m.AlignedRouge, "forget"), ROUGES, lambda a, b: m.aligned_rouge(a, b, "forget")),
    (partial(m.AlignedRouge, "retain"), ROUGES, lambda a, b: m.aligned_rouge(a, b, "retain")),
    (m.Mean, (torch.tensor(ROUGES[0], dtype=torch.float64),), float),
    (m.OptionProbability, (LOG_PROBS, WRONG), m.option_probability),
    (m.Exposure, ([-1.0, -2.0, -3.0, -4.0, -5.0], [[-2.5, -0.5, -1.0, -4.0]] * 5), m.exposure),
]
# Class, two lists of numbers, value over the whole of them. The first process has only some of the first list.
WHOLE: list[tuple[Any, tuple[list, list], Any]] = [
    (m.ForgetQuality, (TRUTH_RATIOS, [0.2, 0.3, 4.0, 5.0, 6.0]), m.forget_quality),
    (m.JSSimilarity, (TRUTH_RATIOS, [0.2, 0.3, 4.0, 5.0, 6.0]), m.js_similarity),
    (m.MembershipAUROC, (TRUTH_RATIOS, [0.2, 0.4, 0.4, 5.0, 0.0]), m.auroc),
    (m.ModalityGap, (TRUTH_RATIOS, [0.2, 0.4, 0.4, 5.0, 0.0]), lambda a, b: mean(a) - mean(b)),
    (m.CorpusBleu, (ANSWERS, TRUTHS), lambda p, r: sacrebleu.corpus_bleu(p, [r]).score / 100),
]


def name_of(cls: Any) -> str:
    if isinstance(cls, partial):
        return f"{cls.func.__name__} {getattr(cls.args[0], '__name__', cls.args[0])}"
    return cls.__name__


def test_every_class_is_among_the_cases() -> None:
    """So that the distributed test below holds for all there are."""
    there = {name for name in m.__all__ if isinstance(found := getattr(m, name), type) and issubclass(found, Metric)}
    assert {name_of(case[0]).split()[0] for case in (*CASES, *WHOLE)} == there


def numbers(value: Any) -> Any:
    """Floats of what `compute` gave."""
    return {k: float(v) for k, v in value.items()} if isinstance(value, dict) else float(value)


def name_of_case(value: Any) -> str | None:
    return name_of(value) if callable(value) and not isinstance(value, list) else None


by_class = pytest.mark.parametrize(("cls", "columns", "score"), CASES, ids=name_of_case)


@by_class
def test_class_is_the_mean_of_its_function(cls: Any, columns: tuple[list, ...], score: Any) -> None:
    scores = [float(score(*row)) for row in zip(*columns, strict=True)]
    assert len(set(scores)) > 1
    one_by_one, at_once, forward = cls(), cls(), cls()
    for row, expected in zip(zip(*columns, strict=True), scores, strict=True):
        one_by_one.update(*row)
        assert forward(*row).item() == pytest.approx(expected)
    at_once.update(*columns)
    for metric in (one_by_one, at_once, forward):
        assert metric.compute().item() == pytest.approx(sum(scores) / len(scores), abs=1e-12)
        assert metric.count == len(scores)
    kind = type(at_once)
    assert kind.higher_is_better is {m.Repetition: False, m.Mean: None, m.Gibberish: None, m.AlignedRouge: None}.get(
        kind, True
    )
    at_once.reset()
    at_once.update(*(column[:1] for column in columns))
    assert at_once.compute().item() == pytest.approx(scores[0])


@pytest.mark.parametrize(("cls", "columns", "score"), WHOLE, ids=name_of_case)
def test_class_of_whole_data_sets_is_its_function(cls: Any, columns: tuple[list, list], score: Any) -> None:
    metric, forward = cls(), cls()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        empty = numbers(metric.compute())
    for value in empty.values() if isinstance(empty, dict) else [empty]:
        assert math.isnan(value)
    metric.reset()
    metric.update(columns[0][:2], columns[1][:2])
    metric.update(columns[0][2:], columns[1][2:])
    torch.nn.ModuleList([metric]).to(torch.bfloat16)
    assert numbers(metric.compute()) == pytest.approx(numbers(score(*columns)), abs=1e-12)
    # forward merges states: one batch has its own value, and all batches the whole.
    assert numbers(forward(columns[0][:3], columns[1][:3])) == pytest.approx(numbers(score(*(c[:3] for c in columns))))
    forward(columns[0][3:], columns[1][3:])
    assert numbers(forward.compute()) == pytest.approx(numbers(score(*columns)), abs=1e-12)
    if cls is not m.CorpusBleu:
        with pytest.raises(ValueError, match="NaN"):
            metric.update([math.nan], [1.0])
    assert numbers(metric.compute()) == pytest.approx(numbers(score(*columns)), abs=1e-12)


@pytest.mark.parametrize(("cls", "columns", "score"), [case for case in CASES if len(case[1]) == 2])
def test_lists_of_different_lengths_are_refused_whole(cls: Any, columns: tuple[list, ...], score: Any) -> None:
    metric = cls()
    with pytest.raises(ValueError, match="zip"):
        metric.update(columns[0], columns[1][:-1])
    assert metric.count == 0 and metric.total == 0


def test_rouge_recall_is_passed_on() -> None:
    metric = m.RougeL(measure="recall")
    metric.update("he paints old houses", "He painted houses")
    assert metric.compute() == 1.0


def test_a_string_is_never_read_letter_by_letter() -> None:
    with pytest.raises(ValueError, match="zip"):
        m.Cloze().update(["a", "b", "c"], "abc")
    with pytest.raises(ValueError, match="single string"):
        m.KeywordMatch().update(["Rio"], ["Rio"])
    with pytest.raises(ValueError, match="shape"):
        m.AnswerProbability().update(-torch.ones(2, 3))


def test_mean_takes_numbers_and_tensors_in_float64() -> None:
    metric = m.Mean()
    metric.update(1)
    metric.update(torch.tensor([[2.0, 3.0], [4.0, 5.0]], dtype=torch.float16, requires_grad=True))
    metric.update(torch.tensor([]))
    assert metric.compute() == 3.0 and metric.compute().dtype == torch.float64
    # A cast of the module that holds the metric must not cost digits.
    metric = m.Mean()
    metric.update(1e8 + 1)
    torch.nn.ModuleList([metric]).to(torch.bfloat16).half()
    metric.update(1.0)
    assert metric.compute().item() == (1e8 + 2) / 2 and metric.count.dtype == torch.int64
    metric.reset()
    assert metric.total.dtype == torch.float64
    assert metric.to("meta").total.device.type == "meta"


@pytest.mark.parametrize("bad", [math.nan, torch.tensor([1.0, math.nan])])
def test_nan_is_refused_and_leaves_the_mean_as_it_was(bad: float | torch.Tensor) -> None:
    metric = m.Mean()
    metric.update(2.0)
    with pytest.raises(ValueError, match="NaN"):
        metric.update(bad)
    assert metric.compute() == 2.0 and metric.count == 1


def test_mean_of_nothing_is_nan_and_infinity_stays() -> None:
    metric = m.Mean()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert metric.compute().isnan()
    metric.update(math.inf)
    assert metric.compute().item() == math.inf


def given(cls: Any, columns: tuple[list, ...], part: slice = slice(None)) -> Any:
    """A metric that has seen a part of the samples."""
    metric = cls()
    metric.update(*(column[part] for column in columns))
    return metric


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    # One sample on rank 0, four on rank 1: a mean of the two means would differ.
    part = slice(0, 1) if rank == 0 else slice(1, 5)
    results = {}
    for cls, columns, _ in (*CASES, *WHOLE):
        name = name_of(cls)
        results[name] = given(cls, columns, part).compute()
        results[f"{name}, all on rank 1"] = (cls() if rank == 0 else given(cls, columns)).compute()
        results[f"{name}, gathered before"] = given(cls, columns).alone().compute()
    torch.save({name: numbers(value) for name, value in results.items()}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_value_of_one(tmp_path: Path) -> None:
    mp.spawn(_work, args=(str(tmp_path),), nprocs=2)
    single = {}
    for cls, columns, score in (*CASES, *WHOLE):
        value = numbers(given(cls, columns).compute())
        whole = cls in [case[0] for case in WHOLE]
        assert value == pytest.approx(numbers(score(*columns)) if whole else mean(map(score, *columns)), abs=1e-12)
        for where in ("", ", all on rank 1", ", gathered before"):
            single[name_of(cls) + where] = value
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found.keys() == single.keys()
        for name, value in single.items():
            assert found[name] == pytest.approx(value, abs=1e-12), name
    # The test above can only see an unweighted mean if the parts differ.
    parts = m.RougeL(), m.RougeL()
    parts[0].update(ANSWERS[:1], TRUTHS[:1])
    parts[1].update(ANSWERS[1:], TRUTHS[1:])
    assert abs(sum(p.compute().item() for p in parts) / 2 - single["RougeL"]) > 0.01
