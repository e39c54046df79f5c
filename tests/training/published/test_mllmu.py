"""MLLMU-Bench as its authors ask it, beside the corrected way: each known defect, and what it changes."""

from dataclasses import replace

import pytest

from viker_lightning.data.datasets import MLLMU
from viker_lightning.data.records import Cloze, MultipleChoice, Split
from viker_lightning.evaluation import CORRECTED, predict
from viker_lightning.training.published import PublishedMLLMU
from viker_lightning.training.published.base import LETTER_REQUEST

CHOICE = MultipleChoice("Which one?", ("red", "a blue one", "green"), 1)


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
    assert f"Which one?\nA: red\nB: a blue one\nC: green\n{LETTER_REQUEST}" in prompts[3]
    assert found[0].question == question and {p.answer for p in found[:2]} == {"x y\nUSER: Why?"}
    asked.seen.clear()
    asked([group], CORRECTED)
    assert not any("trained knowledge" in text or LETTER_REQUEST in text for _, text in asked.seen)


def test_examples_are_seeded_and_their_people_not_scored(asked, data, mllmu):
    """P9, M1: the published draw has no seed; the denominators (24 x 5, 23 x 2) are the published ones."""
    retained = data.evaluation(Split.RETAIN, "text")
    again = PublishedMLLMU(MLLMU(data.root))
    again.data.prepare_data()
    again.data.setup()
    for task, count in (("choice", 1), ("cloze", 2)):
        drawn = [g.person for g in mllmu.example_people(retained[0], task)]
        assert len(drawn) == count and drawn == [g.person for g in again.example_people(retained[0], task)]
        assert sum(mllmu.skips(g, task) for g in retained) == count
    (one,) = mllmu.example_people(retained[0], "choice")
    prompt = mllmu.ask_choice(CHOICE, retained[0])
    assert prompt.count("Correct Answer: ") == len(one.choices) and prompt.endswith(LETTER_REQUEST)
    corrected = CORRECTED.ask_choice(CHOICE, retained[0])
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
    yield f"{opening}{choice.question}\n{options}\n{LETTER_REQUEST}\nASSISTANT:"


@pytest.mark.parametrize("image", [True, False])
def test_answers_are_those_of_the_script(mllm, groups, mllmu, image, monkeypatch):
    """Word by word what transformers' processor and model make of the strings of eval.py."""
    mllm.eval()
    answered = []
    for vqa in groups[0].vqa:
        cloze = Cloze(f"{vqa.answer[:12]} __.", "x")
        about = groups[0].image if image else None
        group = replace(groups[0], image=about, split=Split.GENERAL, vqa=(vqa,), choices=(CHOICE,), clozes=(cloze,))
        monkeypatch.setattr(mllmu, "read_option", lambda text, options: text)
        found = predict(mllm, [group], protocol=mllmu, max_new_tokens=8)
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
    encoded = [mllm.encoder.encode(mllmu.ask_open(q, group)[0], True) for q in group.vqa]
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
    assert mllmu.example_people(text[0], "cloze") == [] and not mllmu.skips(text[0], "cloze")
    assert "fewer than examples, so there are none" in caplog.text
