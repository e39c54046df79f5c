"""CLEAR as its authors ask and score it, beside the corrected way: each known defect, and what it changes."""

import json
import math
import shutil
from dataclasses import replace

import pytest

from viker_lightning import metrics
from viker_lightning.data.datasets import CLEAR
from viker_lightning.data.prompts import CAPTION_QUESTIONS, NAME_QUESTION
from viker_lightning.data.records import ImageGroup, MultipleChoice, Split
from viker_lightning.evaluation import CORRECTED, summarise
from viker_lightning.metrics import Prediction, truth_ratios
from viker_lightning.training.published import protocol_of
from viker_lightning.training.published.base import LETTER_REQUEST

CHOICE = MultipleChoice("Which one?", ("red", "a blue one", "green"), 1)


def test_clear_answers_without_the_image(asked, clear_data, clear):
    """C1: ROUGE of CLEAR is of text-only answers; likelihoods do see the image."""
    group = clear_data.evaluation(Split.FORGET)[0]
    found = asked([group], clear)
    assert {p.answer for p in found if p.task == "generation"} == {"blind, at most 300"}
    assert asked.seen and all(picture == group.image for picture, _ in asked.seen)
    assert {p.answer for p in asked([group], CORRECTED) if p.task == "generation"} == {"B is it"}


def test_clear_mixes_caption_questions(clear_data, clear):
    """C5: true, paraphrased and wrong captions are scored behind different questions."""
    groups = [g for split in (Split.FORGET, Split.RETAIN) for g in clear_data.evaluation(split)]
    mixed = 0
    for group in groups:
        caption, name = group.vqa
        true, paraphrase, *wrong = clear.ask_open(caption, group)
        assert len({q.question for q in wrong}) == 1 and true.question in CAPTION_QUESTIONS
        mixed += len({true.question, paraphrase.question, wrong[0].question}) > 1
        assert {q.question for q in CORRECTED.ask_open(caption, group)} == {caption.question}
        assert {q.question for q in clear.ask_open(name, group)} == {NAME_QUESTION + " "}
    assert mixed > len(groups) / 2


def test_clear_text_has_a_space_before_assistant(mllm, clear, mllmu):
    own = mllm.encoder.template
    spaced = clear.template(own)
    assert spaced.question == "\n{question} ASSISTANT:" and spaced.answer == " {answer} "
    assert own.question == "\n{question}\nASSISTANT:"
    assert mllmu.template(own) is own


@pytest.mark.parametrize(("says", "read"), [("b.", "a blue one"), ("- C", "green"), ("D", ""), ("…", "")])
def test_clear_letters(clear, says, read):
    assert clear.read_option(says, CHOICE.options) == read
    assert (
        clear.ask_choice(CHOICE, ImageGroup("1", None))
        == f"Which one?\nA. red\nB. a blue one\nC. green\n{LETTER_REQUEST}"
    )


def captioned(number, true, wrong, question=CAPTION_QUESTIONS[0], split="forget", answer="Ada sits."):
    about = (split, str(number), "generation", 0, question, "Ada sits at a desk.", answer)
    values = {"log_probs": [true], "correct": [True], "private_tokens": [False], "ended": False}
    return Prediction(*about, **values, perturbed=wrong)


def test_truth_ratio_over_the_whole_task(clear):
    """P1, C6: one mean of the wrong answers for all questions in place of one for each."""
    found = [
        captioned(0, -1.0, [-1.0, -3.0]),
        captioned(1, -2.0, [-6.0, -6.0]),
        captioned(2, -1.0, [-9.0], NAME_QUESTION),
    ]
    assert [r for _, r in truth_ratios(found)] == pytest.approx([math.exp(-1), math.exp(-4), math.exp(-8)])
    pooled = [r for _, r in truth_ratios(found, clear)]
    assert pooled == pytest.approx([math.exp(-4 + 1), math.exp(-4 + 2), math.exp(-8)])
    one, two = summarise(found)["forget"], summarise(found, protocol=clear)["forget"]
    assert two["truth_ratio"] == pytest.approx(sum(pooled) / 3) and one["truth_ratio"] != two["truth_ratio"]
    gold = [replace(p, log_probs=[p.log_probs[0] * 2], perturbed=[-3.0 - i]) for i, p in enumerate(found)]
    captions = summarise(found[:2], gold[:2], protocol=clear)["forget"]
    for name in ("forget_quality_ks", "forget_quality_p", "js_similarity"):  # eval_log_forget alone, without names
        assert summarise(found, gold, protocol=clear)["forget"][name] == captions[name]
    assert (
        summarise(found, gold)["forget"]["js_similarity"]
        != summarise(found, gold, protocol=clear)["forget"]["js_similarity"]
    )


def test_rouge_variants():
    """MLLMU reports the F-measure, CLEAR the recall, which a long answer cannot lose."""
    values = summarise([captioned(0, -1.0, [-2.0], answer="Ada sits at a desk and then she gets up and goes home.")])
    assert values["forget"]["rouge_l_recall"] == 1 and values["forget"]["rouge_l"] < 0.7
    assert values["forget"]["bleu"] != values["forget"]["sacrebleu"]


def test_clear_columns(clear):
    caption = {"question": CAPTION_QUESTIONS[0], "answer": "Ada sits at a desk."}
    found = [
        captioned(0, -1.0, [-1.5], split="retain", **caption),
        captioned(1, -1.0, [-2.0], NAME_QUESTION, "retain"),
        captioned(2, -0.5, [-1.0], NAME_QUESTION, "real"),
        captioned(3, -0.5, [-3.0], "Where?", "general"),
        captioned(4, -3.0, [-3.0], split="forget", **caption),
    ]
    overall = summarise(found, protocol=clear)["overall"]
    share = [math.exp(t) / (math.exp(t) + math.exp(w)) for t, w in ((-1.0, -2.0), (-0.5, -1.0), (-0.5, -3.0))]
    truth = [1 - math.exp(w - t) for t, w in ((-1.0, -1.5), (-1.0, -2.0), (-0.5, -1.0), (-0.5, -3.0))]
    assert overall["clear_retain"] == pytest.approx(metrics.model_utility([math.exp(-1), share[0], *truth[:2]]))
    assert overall["clear_real"] == pytest.approx(metrics.model_utility([*share[1:], *truth[2:]]))
    assert overall["clear_forget"] == pytest.approx(metrics.model_utility([math.exp(-3), 1.0]))
    assert 0 < overall["model_utility"] < 1
    assert set(summarise(found)["overall"]) == {"model_utility"}


@pytest.fixture(scope="module")
def both_data(clear_data, tmp_path_factory):
    """The embedded CLEAR with all text-only files that TOFU has."""
    root = shutil.copytree(clear_data.folder, tmp_path_factory.mktemp("clear") / "both")
    for name in ("real_authors", "world_facts"):
        row = {"question": f"Which of the {name}?", "answer": "This one.", "perturbed_answer": ["That one.", "None."]}
        (root / f"{name}_perturbed.json").write_text(json.dumps(row))
    module = CLEAR(str(root), forget=10, modality="both", protocol="published")
    module.setup()
    return module


@pytest.mark.parametrize("pictured", [True, False])
def test_text_only_rows_are_none_of_clears_tasks(both_data, pictured):
    """With ``modality: both`` TOFU's rows are asked, too; CLEAR's columns are of its six tasks all the same.

    Rows of ``real_world`` may have no image: they are told from TOFU's world facts by their questions.
    """
    protocol = protocol_of(both_data)

    def answered(modality):
        groups = [g for split in Split for g in both_data.evaluation(split, modality)]
        for i, (g, number, vqa) in enumerate((group, n, vqa) for group in groups for n, vqa in enumerate(group.vqa)):
            score = -0.5 - i % 7 / 10
            text = g.image is None or (g.split == Split.GENERAL and not pictured)
            yield Prediction(
                *(str(g.split), g.person, "generation", number, vqa.question, vqa.answer, vqa.answer, vqa.private),
                *([score], [True], [False]),
                perturbed=[score - (1.0 if modality == "image" else 3.0)] * len(vqa.perturbed),
                modality="text" if text else "image",
            )

    images, texts = list(answered("image")), list(answered("text"))
    assert {p.split for p in texts} >= {"forget", "retain", "real", "general"}
    whole = summarise([*images, *texts], protocol=protocol)["overall"]
    assert whole == summarise(images, protocol=protocol)["overall"]
    assert set(whole) == {"model_utility", "clear_real", "clear_retain", "clear_forget"}
    assert "overall" not in summarise(texts, protocol=protocol)
    forget = [p for p in texts if p.split == "forget" and p.perturbed]
    assert forget and truth_ratios([*images, *forget], protocol)[-len(forget) :] == truth_ratios(
        forget
    )  # row by row, as in TOFU
