"""The published way of asking and scoring beside the corrected one: each known defect, and what it changes."""

import json
import math
import shutil
from dataclasses import replace
from importlib import import_module

import pytest

from viker_lightning import metrics
from viker_lightning.data.records import Cloze, ImageGroup, MultipleChoice, Split
from viker_lightning.datasets import CLEAR, MLLMU, FIUBench, Jsonl, UMUBench
from viker_lightning.errors import UserError
from viker_lightning.evaluation import (
    CORRECTED,
    PublishedCLEAR,
    PublishedMLLMU,
    predict,
    protocol_of,
    summarise,
)
from viker_lightning.evaluation.protocols import LETTER, PUBLISHED
from viker_lightning.metrics import Prediction, truth_ratios
from viker_lightning.prompts import CAPTION_QUESTIONS, NAME_QUESTION

CHOICE = MultipleChoice("Which one?", ("red", "a blue one", "green"), 1)


@pytest.fixture
def mllmu(data):
    return PublishedMLLMU(data)


@pytest.fixture(scope="module")
def clear_data(cache):
    module = CLEAR("mini/clear-ci", forget=10)
    module.prepare_data()
    module.setup()
    return module


@pytest.fixture
def clear(clear_data):
    return PublishedCLEAR(clear_data)


@pytest.fixture
def asked(mllm, monkeypatch):
    """Runs predict with a model that says what it is told to, and records each prompt with its image."""
    seen = []

    def run(groups, protocol, says="B is it"):
        module = import_module("viker_lightning.evaluation.predict")
        true = module.answer

        def answer(model, batch, decoded, most):
            rows = zip(batch.row_of, batch.encoded, strict=True)
            seen.extend((batch.pictures[r], model.encoder.tokenizer.decode(q.prompt)) for r, q in rows)
            return true(model, batch, [], most)[0], [says] * len(decoded)

        def behind(prefixes, protocol, asked, most):
            seen.extend((one.group.image, one.question) for one in asked)
            return [says] * len(asked)

        def generate(model, groups, most):
            return [[f"blind, at most {most}" if g.image is None else says for _ in g.vqa] for g in groups]

        monkeypatch.setattr(module, "answer", answer)
        monkeypatch.setattr(module, "answer_behind", behind)
        monkeypatch.setattr(module, "generate", generate)
        return predict(mllm, groups, protocol=protocol)

    run.seen = seen
    return run


def test_only_two_benchmarks_have_one(data, tmp_path):
    assert protocol_of(data) is CORRECTED
    for kind, protocol in ((MLLMU, PublishedMLLMU), (CLEAR, PublishedCLEAR)):
        assert type(protocol_of(kind(protocol="published"))) is protocol
    for kind in (Jsonl, UMUBench, FIUBench):
        with pytest.raises(UserError, match=rf"data.protocol: found 'published', but {kind.__name__} has only"):
            kind(str(tmp_path), protocol="published")


@pytest.mark.parametrize(
    ("says", "published"),
    [("B", "a blue one"), ("b: a blue one", "a blue one"), ("A blue one", "red"), ("the blue one", ""), ("", "")],
)
def test_letters_are_read_off_sentences(asked, groups, mllmu, says, published):
    """MLLMU eval.py L376: the first character counts, whatever the sentence says; likelihood cannot be misread."""
    group = replace(groups[0], split=Split.FORGET, vqa=(), choices=(CHOICE,))
    (found,) = asked([group], mllmu, says)
    assert found.answer == published and found.log_probs == [] and found.options == list(CHOICE.options)
    (corrected,) = asked([group], CORRECTED, says)
    assert corrected.answer in CHOICE.options and len(corrected.log_probs) == 3


def test_mllmu_prompts(asked, groups, mllmu):
    group = replace(
        groups[0], split=Split.FORGET, vqa=groups[0].vqa[:1], choices=(CHOICE,), clozes=(Cloze("In __.", "x"),)
    )
    found = asked([group], mllmu, "x y\nUSER: Why?\nASSISTANT: z")
    prompts = [text for _, text in asked.seen]
    question = group.vqa[0].question
    assert (
        f"{question}\nAnswer the question based on your trained knowledge in one sentence accurately in ENGLISH."
        in (prompts[0])
    )
    assert "In [Blank].\nPlease **ONLY** provide" in prompts[2]
    assert f"Which one?\nA: red\nB: a blue one\nC: green\n{LETTER}" in prompts[3]
    assert found[0].question == question and {p.answer for p in found[:2]} == {"x y\nUSER: Why?"}
    asked.seen.clear()
    asked([group], CORRECTED)
    assert not any("trained knowledge" in text or LETTER in text for _, text in asked.seen)


def test_examples_are_seeded_and_their_people_not_scored(asked, data, mllmu):
    """P9, M1: the published draw has no seed; the denominators (24 x 5, 23 x 2) are the published ones."""
    retained = data.evaluation(Split.RETAIN, "text")
    again = PublishedMLLMU(MLLMU(data.root))
    again.data.prepare_data()
    again.data.setup()
    for task, count in (("choice", 1), ("cloze", 2)):
        drawn = [g.person for g in mllmu.examples(retained[0], task)]
        assert len(drawn) == count and drawn == [g.person for g in again.examples(retained[0], task)]
        assert sum(mllmu.skips(g, task) for g in retained) == count
    (one,) = mllmu.examples(retained[0], "choice")
    prompt = mllmu.choice(CHOICE, retained[0])
    assert prompt.count("Correct Answer: ") == len(one.choices) and prompt.endswith(LETTER)
    corrected = CORRECTED.choice(CHOICE, retained[0])
    assert "Correct Answer" not in corrected and "USER:" not in corrected  # M5: turns nobody answers
    skipped = asked([replace(one, vqa=())], mllmu)
    assert {p.task for p in skipped} <= {"cloze"}
    assert {p.task for p in asked([replace(one, vqa=())], CORRECTED)} == {"cloze", "choice"}


def script(vqa, choice, cloze, image):
    """What eval.py writes before a model answers, without examples: L731, L751, L361, L414, L605."""
    opening = "USER: <image>\n" if image else "USER:\n"
    sentence = "Answer the question based on your trained knowledge in one sentence"
    blank = "Please **ONLY** provide the correct answer that should replace the [Blank]."
    yield (
        f"{opening}{vqa.question}\n{sentence} accurately in ENGLISH.\nASSISTANT: "
        if image
        else f"USER: {vqa.question}\n{sentence} in ENGLISH.\nASSISTANT:"
    )
    yield f"{opening}{cloze.question.replace('__', '[Blank]')}\n{blank}\nASSISTANT:"
    options = "\n".join(f"{letter}: {o}" for letter, o in zip("ABC", choice.options, strict=True))
    yield f"{opening}{choice.question}\n{options}\n{LETTER}\nASSISTANT:"


@pytest.mark.parametrize("image", [True, False])
def test_answers_are_those_of_the_script(mllm, groups, mllmu, image, monkeypatch):
    """Word by word what transformers' processor and model make of the strings of eval.py."""
    monkeypatch.setattr(import_module("viker_lightning.evaluation.predict"), "MAX_NEW_TOKENS", 8)
    mllm.eval()
    answered = []
    for vqa in groups[0].vqa:
        cloze = Cloze(f"{vqa.answer[:12]} __.", "x")
        about = groups[0].image if image else None
        group = replace(groups[0], image=about, split=Split.GENERAL, vqa=(vqa,), choices=(CHOICE,), clozes=(cloze,))
        monkeypatch.setattr(mllmu, "option", lambda text, options: text)
        found = predict(mllm, [group], protocol=mllmu)
        for text, prediction in zip(script(vqa, CHOICE, cloze, image), found, strict=True):
            inputs = mllm.processor(images=about.open() if image else None, text=text, return_tensors="pt")
            out = mllm.base.generate(**inputs, max_new_tokens=8, do_sample=False)
            said = mllm.processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            answered.append((prediction.answer, said.strip()))
    assert [ours for ours, _ in answered] == [theirs for _, theirs in answered]


def test_likelihoods_are_of_the_text_as_trained(mllm, groups, mllmu):
    """The script takes none; the space before an answer is its own, not one of the prompt."""
    group = replace(groups[0], split=Split.GENERAL)
    found = predict(mllm, [group], protocol=mllmu)
    encoded = [mllm.encoder.encode(mllmu.open(q, group)[0], True) for q in group.vqa]
    tokens = mllm.answer_tokens(mllm.assemble([group.image], [encoded]))
    wanted = tokens.log_probs.split([len(q.answer) for q in encoded])
    for prediction, log_probs in zip(found, wanted, strict=True):
        assert prediction.log_probs == pytest.approx(log_probs.tolist(), abs=1e-4)
        assert prediction.paraphrase is None and prediction.perturbed == []


def test_too_few_people_for_examples(data, mllmu, monkeypatch, caplog):
    """All of them are examples, and nobody is asked; fewer than that stop the script, and are asked without."""
    text = data.evaluation(Split.FORGET, "text")
    monkeypatch.setattr(data, "evaluation", lambda split, modality=None: text[:1])
    assert mllmu.skips(text[0], "choice") and "all are examples, so none is asked" in caplog.text
    assert mllmu.examples(text[0], "cloze") == [] and not mllmu.skips(text[0], "cloze")
    assert "fewer than examples, so there are none" in caplog.text


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
        true, paraphrase, *wrong = clear.open(caption, group)
        assert len({q.question for q in wrong}) == 1 and true.question in CAPTION_QUESTIONS
        mixed += len({true.question, paraphrase.question, wrong[0].question}) > 1
        assert {q.question for q in CORRECTED.open(caption, group)} == {caption.question}
        assert {q.question for q in clear.open(name, group)} == {NAME_QUESTION + " "}
    assert mixed > len(groups) / 2


def test_clear_text_has_a_space_before_assistant(mllm):
    own = mllm.encoder.template
    spaced = CLEAR(protocol="published").as_published.template(own)
    assert spaced.question == "\n{question} ASSISTANT:" and spaced.answer == " {answer} "
    assert own.question == "\n{question}\nASSISTANT:"
    assert MLLMU(protocol="published").as_published.template(own) is own
    assert CLEAR().as_published is None


@pytest.mark.parametrize(("says", "read"), [("b.", "a blue one"), ("- C", "green"), ("D", ""), ("…", "")])
def test_clear_letters(clear, says, read):
    assert clear.option(says, CHOICE.options) == read
    assert clear.choice(CHOICE, ImageGroup("1", None)) == f"Which one?\nA. red\nB. a blue one\nC. green\n{LETTER}"


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
    pooled = truth_ratios([*images, *forget], protocol)
    assert forget and pooled[-len(forget) :] == truth_ratios(forget)  # row by row, as in TOFU


def test_extraction_strength_of_an_answer_without_its_end():
    """P10: open-unlearning leaves 1 / L where nothing is extracted."""
    found = replace(captioned(0, -1.0, []), log_probs=[-1.0, -1.0], correct=[True, False], private_tokens=[False] * 2)
    assert summarise([found])["forget"]["extraction_strength"] == 0


def test_published_runs_on_a_real_model(mllm, clear_data, mllmu, data, monkeypatch):
    monkeypatch.setattr(import_module("viker_lightning.evaluation.predict"), "MAX_NEW_TOKENS", 3)
    monkeypatch.setattr(PublishedCLEAR, "max_new_tokens", 3)
    for module in (clear_data, data):
        protocol = PUBLISHED[type(module)](module)
        groups = [g for m in ("image", "text") for g in module.evaluation(Split.FORGET, m)[:2]]
        found = predict(mllm, groups, protocol=protocol)
        assert [len(p.log_probs) > 0 for p in found] == [p.task == "generation" for p in found]
        assert {p.protocol for p in found} == {"published"}
        assert summarise(found, found, protocol=protocol)["forget"]["n"] > 0
        wanted = sum(len(g.vqa) for g in groups)
        assert sum(p.task == "generation" for p in found) == wanted
