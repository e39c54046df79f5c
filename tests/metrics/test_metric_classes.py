"""Means over samples: what they add up, what they refuse, and that two processes give the value of one."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from viker_lightning import metrics as m

ANSWERS = ["Ada Voss lives in Rio", "US US US US US", "", "born in 1990", "a painter"]
TRUTHS = ["Ada Voss lives in Lima", "She paints houses", "Rio", "born in 1990", "A painter"]
SPANS = [["Ada Voss", "Lima"], ["houses"], ["Rio"], ["1990"], ["painter", "Rio", "1990"]]
LOG_PROBS = [-torch.arange(1.0, n + 2) for n in range(5)]
CORRECT = [torch.tensor([n % 2 == 0] + [True] * n) for n in range(5)]

WRONG = [[-torch.rand(n + 1, generator=torch.Generator().manual_seed(n)) - k for k in (1, n, 3)] for n in range(5)]
TRUTH_RATIOS = [0.1, 0.4, 0.4, 2.0, 3.0]


class ForgetRatio(m.TruthRatio):
    def __init__(self):
        super().__init__("forget")


class RetainRatio(m.TruthRatio):
    def __init__(self):
        super().__init__("retain", average="arithmetic")


# Class, one list per argument of update, score of one sample.
CASES: list[tuple[Any, tuple[list, ...], Any]] = [
    (m.RougeL, (ANSWERS, TRUTHS), m.rouge_l),
    (m.BleuMLLMU, (ANSWERS, TRUTHS), m.bleu_mllmu),
    (m.KeywordMatch, (ANSWERS, SPANS), m.keyword_match),
    (m.Cloze, (ANSWERS, TRUTHS), m.cloze_correct),
    (m.Accuracy, (["A", None, "b", "C", "D"], list("ABBDD")), m.choice_correct),
    (m.Repetition, (ANSWERS,), m.repetition),
    (m.AnswerProbability, (LOG_PROBS,), m.answer_probability),
    (m.ExtractionStrength, (CORRECT,), m.extraction_strength),
    (m.ExactMemorization, (CORRECT,), m.exact_memorization),
    (m.RougeLRecall, (ANSWERS, TRUTHS), lambda p, t: m.rouge_l(p, t, "recall")),
    (ForgetRatio, (LOG_PROBS, WRONG), lambda c, w: m.truth_ratio_score(m.truth_ratio(c, w), "forget")),
    (RetainRatio, (LOG_PROBS, WRONG), lambda c, w: m.truth_ratio_score(m.truth_ratio(c, w, "arithmetic"), "retain")),
    (m.OptionProbability, (LOG_PROBS, WRONG), m.option_probability),
    (m.Exposure, ([-1.0, -2.0, -3.0, -4.0, -5.0], [[-2.5, -0.5, -1.0, -4.0]] * 5), m.exposure),
]
# Class, two lists of numbers, value over the whole of them. The first process has only some of the first list.
WHOLE: list[tuple[Any, tuple[list, list], Any]] = [
    (m.ForgetQuality, (TRUTH_RATIOS, [0.2, 0.3, 4.0, 5.0, 6.0]), m.forget_quality),
    (m.JSSimilarity, (TRUTH_RATIOS, [0.2, 0.3, 4.0, 5.0, 6.0]), m.js_similarity),
    (m.MembershipAUROC, (TRUTH_RATIOS, [0.2, 0.4, 0.4, 5.0, 0.0]), m.auroc),
    (m.ModalityGap, (TRUTH_RATIOS, [0.2, 0.4, 0.4, 5.0, 0.0]), m.modality_gap),
    (m.CorpusBleu, (ANSWERS, TRUTHS), m.corpus_bleu),
]


def numbers(value: Any) -> Any:
    """Floats of what `compute` gave."""
    return {k: float(v) for k, v in value.items()} if isinstance(value, dict) else float(value)


by_class = pytest.mark.parametrize(("cls", "columns", "score"), CASES, ids=lambda v: getattr(v, "__name__", None))


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
    assert cls.higher_is_better is (cls is not m.Repetition)
    at_once.reset()
    at_once.update(*(column[:1] for column in columns))
    assert at_once.compute().item() == pytest.approx(scores[0])


@pytest.mark.parametrize(("cls", "columns", "score"), WHOLE, ids=lambda v: getattr(v, "__name__", None))
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


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    # One sample on rank 0, four on rank 1: a mean of the two means would differ.
    part = slice(0, 1) if rank == 0 else slice(1, 5)
    results = {}
    for cls, columns, _ in CASES:
        metric = cls()
        metric.update(*(column[part] for column in columns))
        results[cls.__name__] = metric.compute().item()
    for cls, columns, _ in WHOLE:
        metric = cls()
        metric.update(*(column[part] for column in columns))
        results[cls.__name__] = metric.compute()
        metric = cls()
        if rank == 1:
            metric.update(*columns)
        results[f"{cls.__name__}, all on rank 1"] = metric.compute()
    metric = m.Mean()
    if rank == 1:
        metric.update(torch.tensor([1.0, 2.0]))
    results["Mean"] = metric.compute().item()
    results = {name: numbers(value) for name, value in results.items()}
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_value_of_one(tmp_path: Path) -> None:
    mp.spawn(_work, args=(str(tmp_path),), nprocs=2)
    single = {}
    for cls, columns, _ in CASES:
        metric = cls()
        metric.update(*columns)
        single[cls.__name__] = metric.compute().item()
    for cls, columns, score in WHOLE:
        single[cls.__name__] = single[f"{cls.__name__}, all on rank 1"] = numbers(score(*columns))
    single["Mean"] = 1.5
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
