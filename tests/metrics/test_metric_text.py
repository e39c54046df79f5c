"""Text scores against the packages the benchmarks use, and at their edges."""

from __future__ import annotations

import random
import warnings

import pytest
import sacrebleu
from nltk.translate import bleu_score as nltk_bleu
from rouge_score.rouge_scorer import RougeScorer

from viker_lightning.metrics import (
    bleu_mllmu,
    choice_correct,
    cloze_correct,
    corpus_bleu,
    keyword_match,
    keyword_match_whole,
    repetition,
    rouge_l,
    rouge_n,
    sacrebleu_signature,
    span_parts,
)

WORDS = "the a painter Painters running ran born in Brenholm, Astavia 1990 of and café works worked".split()


def random_text(rng: random.Random, most: int = 14) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randrange(most)))


def test_rouge_and_bleu_equal_the_packages() -> None:
    rng = random.Random(0)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for _ in range(200):
        prediction, reference = random_text(rng), random_text(rng)
        for n in (1, 2):
            assert rouge_n(prediction, reference, n) == scorer.score(reference, prediction)[f"rouge{n}"].fmeasure
        golden = scorer.score(reference, prediction)["rougeL"]
        assert rouge_l(prediction, reference) == golden.fmeasure
        assert rouge_l(prediction, reference, "recall") == golden.recall
        if prediction:
            smooth = nltk_bleu.SmoothingFunction().method1
            golden = nltk_bleu.sentence_bleu([reference.split()], prediction.split(), smoothing_function=smooth)
            assert bleu_mllmu(prediction, reference) == golden


def test_rouge_by_hand() -> None:
    # Common subsequence "he paint hous" of 3 and 4 stems.
    assert rouge_l("He painted houses", "he paints old houses") == pytest.approx(2 * 1 * 0.75 / 1.75)
    assert rouge_l("He painted houses", "he paints old houses", "recall") == 0.75
    assert rouge_l("he paints old houses", "He painted houses", "recall") == 1.0
    assert rouge_l("", "x") == rouge_l("x", "") == rouge_l("", "") == 0.0
    with pytest.raises(ValueError, match="measure"):
        rouge_l("x", "x", "precision")  # type: ignore[arg-type]


def test_sacrebleu_is_the_package_over_100() -> None:
    rng = random.Random(1)
    predictions, references = ([random_text(rng) for _ in range(60)] for _ in range(2))
    assert corpus_bleu(predictions, references) == sacrebleu.corpus_bleu(predictions, [references]).score / 100 > 0
    assert corpus_bleu(["Rio is a city", ""], ["Rio is a city", ""]) == pytest.approx(1.0)
    assert corpus_bleu(["Rio is a city"], ["Rio is a city"]) == pytest.approx(1.0)
    assert corpus_bleu([""], ["x"]) == corpus_bleu([""], [""]) == 0.0
    assert "tok:13a" in sacrebleu_signature() and "smooth:exp" in sacrebleu_signature()
    # Matches are added up before precisions are taken: not the mean of the sentences.
    parts = [corpus_bleu(predictions[i : i + 1], references[i : i + 1]) for i in range(60)]
    assert abs(sum(parts) / 60 - corpus_bleu(predictions, references)) > 0.01
    with pytest.raises(ValueError, match="zip"):
        corpus_bleu(["a"], [])


def test_bleu_edges_give_numbers_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bleu_mllmu("", "x") == bleu_mllmu(" \n", "x") == bleu_mllmu("", "") == bleu_mllmu("x", "") == 0.0
        assert bleu_mllmu("Rio", "Lima") == 0.0
        assert bleu_mllmu("Rio", "Rio") == pytest.approx(0.178, abs=5e-4)
        assert bleu_mllmu("a b c d", "a b c d") == 1.0
        assert bleu_mllmu("A B C D", "a b c d") == 0.0


@pytest.mark.parametrize(
    ("prediction", "span", "found"),
    [
        ("She lives in RIO.", "Rio", True),
        ("A riot broke out", "Rio", False),
        ("Curio", "Rio", False),
        ("Rio", "Rio", True),
        ("born in brenholm,\n  ASTAVIA!", "Brenholm, Astavia", True),
        ("born in Brenholm Astavia", "Brenholm, Astavia", False),
        ("born in Brenholm", "Brenholm, Astavia", False),
        ("in 19901", "1990", False),
        ("(1990)", " 1990 ", True),
        ("a riot, then Rio", "Rio", True),
        ("It costs US$500.", "$500", True),
        ("It costs $5000", "$500", False),
        ("He works at St.Mark", "St.", True),
        ("C.E.O", "CxExO", False),
        ("CxExO", "C.E.O", False),
        ("Łódź", "ŁÓDŹ", True),
        ("cafe\u0301", "caf\u00e9", True),
        ("cafe\u0301", "cafe", False),
        ("Hauptstraße 3", "HAUPTSTRASSE", True),
        ("", "Rio", False),
        ("snake_case", "snake", False),
    ],
)
def test_keyword_match_finds_whole_spans_only(prediction: str, span: str, found: bool) -> None:
    assert keyword_match_whole(prediction, [span]) == float(found)
    if "," not in span:
        assert keyword_match(prediction, [span]) == float(found)


@pytest.mark.parametrize(
    ("prediction", "told"),
    [
        ("born in Brenholm", 0.5),
        ("born in brenholm in Norvelle", 0.5),
        ("Astavia, Brenholm", 1.0),
        ("born in Brenholm, Astavia.", 1.0),
        ("born in Brenholms", 0.0),
    ],
)
def test_a_span_counts_by_its_parts(prediction: str, told: float) -> None:
    assert keyword_match(prediction, ["Brenholm, Astavia"]) == told
    assert keyword_match(prediction, ["Brenholm, Astavia", "nobody"]) == told / 2, "every span weighs the same"
    assert keyword_match_whole(prediction, ["Brenholm, Astavia"]) == float("Brenholm, Astavia" in prediction)


def test_parts_stand_between_commas() -> None:
    assert span_parts("Rio") == ["Rio"] and span_parts("May 5,  1980") == ["May 5", "1980"]
    assert span_parts("$1,000") == ["$1,000"] and span_parts("Rio, ") == ["Rio"] and span_parts(", ") == [", "]
    assert span_parts("Rio, , Lima, ,") == ["Rio", "Lima"]


def test_keyword_match_is_the_fraction_found() -> None:
    answer = "Ada Voss, a painter from Rio."
    assert keyword_match(answer, ["Ada Voss", "rio", "1990"]) == pytest.approx(2 / 3)
    rng = random.Random(1)
    for _ in range(100):
        spans = [f"k{i}" for i in range(rng.randrange(1, 9))]
        kept = [s for s in spans if rng.random() < 0.5]
        assert keyword_match(" and ".join(kept).upper(), spans) == pytest.approx(len(kept) / len(spans))


@pytest.mark.parametrize("keywords", [[], ["Rio", " "], [""], "Rio"])
@pytest.mark.parametrize("measure", [keyword_match, keyword_match_whole])
def test_keyword_match_refuses_what_has_no_meaning(measure, keywords: list[str]) -> None:
    with pytest.raises(ValueError, match="keyword"):
        measure("Rio", keywords)


def test_cloze_finds_words_or_as_published_anything() -> None:
    for words in (True, False):
        assert cloze_correct("The answer is RIO de Janeiro.", "Rio de janeiro", words)
        assert not cloze_correct("Rio", "Rio de Janeiro", words)
        assert not cloze_correct("", "Rio", words)
        with pytest.raises(ValueError, match="blank"):
            cloze_correct("anything", " ", words)
    for inside, truth in (("likes parties", "art"), ("143 years", "43"), ("a party", "Art")):
        assert cloze_correct(inside, truth, words=False) and not cloze_correct(inside, truth)


def test_choice_correct() -> None:
    assert choice_correct(" b", "B")
    assert not choice_correct("B", "A")
    assert not choice_correct(None, "A")
    assert not choice_correct("AB", "A")


def test_repetition_by_hand() -> None:
    assert repetition("") == repetition("one two") == repetition("no no") == repetition("a b c") == 0.0
    assert repetition("aaaa aaaa aaaa aaaa") == 0.5
    assert repetition("a b c a b c") == 0.25
    assert repetition("The city has 1000000 people and a www page") == 0.0


@pytest.mark.parametrize("loop", ["US " * 40, "a" * 40, "no" * 40, "!" * 40, "He said " + "nobody" * 20, "我" * 40])
def test_repetition_catches_loops_with_and_without_spaces(loop: str) -> None:
    assert repetition(loop) > 0.75


def test_repetition_equals_its_definition_and_grows_with_copies() -> None:
    rng = random.Random(2)
    for _ in range(100):
        words = [rng.choice("abc") for _ in range(rng.randrange(3, 30))]
        trigrams = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
        assert repetition(" ".join(words)) == pytest.approx(1 - len(set(trigrams)) / len(trigrams))
    scores = [repetition("red green blue grey " * copies) for copies in range(1, 9)]
    assert scores == sorted(scores) and scores[0] == 0.0 and 0.8 < scores[-1] < 1.0
