import math
from dataclasses import replace

import pytest
import torch

from support.plain_route import plain_logits
from viker_lightning import evaluation
from viker_lightning.data.prompts import choice_prompt
from viker_lightning.data.records import VQA, Cloze, ImageGroup, Labels, MultipleChoice, Person, Split
from viker_lightning.errors import UserError
from viker_lightning.evaluation import Knowledge, Protocol, answering, knowledge, measure_knowledge, summarise
from viker_lightning.metrics import Prediction


def predict(*what, **how):
    """Untrained models would never stop talking."""
    return evaluation.predict(*what, max_new_tokens=4, **how)


@pytest.fixture
def asked(groups):
    """Groups with all three tasks."""
    choice = MultipleChoice("Which one?", ("red", "green apple", "blue", "none"), 1)
    return [
        ImageGroup(g.person, g.image, Split.FORGET, g.vqa[:2], (choice,), (Cloze("This is __.", "red"),))
        for g in groups
    ]


def test_every_question_is_answered_once(mllm, asked):
    found = predict(mllm, asked)
    keys = [(p.person, p.task, p.number) for p in found]
    assert len(set(keys)) == len(keys) == sum(len(g.vqa) + len(g.choices) + len(g.clozes) for g in asked)
    assert all(p.split == "forget" for p in found)
    assert {(p.person, p.image) for p in found} == {(g.person, g.image.key) for g in asked}


def test_truth_ratio_answers_are_scored_as_if_alone(mllm, groups):
    vqa = replace(groups[1].vqa[0], paraphrase="It is so.", perturbed=("It is not.", "It was long ago, they say."))
    group = replace(groups[1], split=Split.FORGET, vqa=(vqa, groups[1].vqa[1]))
    found = predict(mllm, [group])
    assert found[1].paraphrase is None and found[1].perturbed == []
    for text, score in zip((vqa.paraphrase, *vqa.perturbed), (found[0].paraphrase, *found[0].perturbed), strict=True):
        logits, tokens = plain_logits(mllm, [replace(group, vqa=(VQA(vqa.question, text),))])
        log_probs = logits.log_softmax(-1)[torch.arange(len(tokens.labels)), tokens.labels]
        assert score == pytest.approx(log_probs.mean().item(), rel=1e-4)


def test_small_budgets_change_nothing(mllm, asked):
    whole = predict(mllm, asked)
    mllm.max_sequence_tokens, mllm.max_tokens = 150, 400
    parts = predict(mllm, asked)
    assert [(p.person, p.task, p.number, p.answer) for p in whole] == [
        (p.person, p.task, p.number, p.answer) for p in parts
    ]
    for a, b in zip(whole, parts, strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, rel=1e-3, abs=1e-4)


def test_plain_route_gives_the_same_predictions(mllm, asked):
    packed = predict(mllm, asked[:2])
    mllm.packs = False
    plain = predict(mllm, asked[:2])
    assert [p.answer for p in packed] == [p.answer for p in plain]
    for a, b in zip(packed, plain, strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, rel=1e-3, abs=1e-4)


def test_answers_do_not_depend_on_company(mllm, asked):
    together = {(p.person, p.task, p.number): p for p in predict(mllm, asked)}
    for group in asked:
        for p in predict(mllm, [group]):
            other = together[p.person, p.task, p.number]
            assert p.answer == other.answer
            assert p.log_probs == pytest.approx(other.log_probs, abs=1e-4)


def test_likelihoods_are_the_plain_ones(mllm, asked):
    found = [p for p in predict(mllm, asked) if p.task == "generation"]
    logits, tokens = plain_logits(mllm, asked)
    wanted = logits.log_softmax(-1)[torch.arange(len(tokens.labels)), tokens.labels]
    assert [x for p in found for x in p.log_probs] == pytest.approx(wanted.tolist(), abs=1e-4)
    assert [x for p in found for x in p.correct] == (logits.argmax(-1) == tokens.labels).tolist()
    assert [x for p in found for x in p.private_tokens] == tokens.private.tolist()


def test_moments_are_those_of_the_whole_distribution(mllm, asked, monkeypatch):
    """Mean and variance of log p(v), v drawn from the model, at every token of the reference, however it is cut."""
    monkeypatch.setattr(answering, "MOMENT_TOKENS", 7)
    found = [p for p in predict(mllm, asked) if p.task == "generation"]
    with torch.no_grad():
        logits, tokens = plain_logits(mllm, [replace(g, choices=(), clozes=()) for g in asked])
    log_p = logits.double().log_softmax(-1)
    mean = (log_p.exp() * log_p).sum(-1)
    variance = (log_p.exp() * log_p**2).sum(-1) - mean**2
    for i, p in enumerate(found):
        assert p.log_prob_mean == pytest.approx(mean[tokens.question == i].tolist(), rel=1e-3)
        assert p.log_prob_variance == pytest.approx(variance[tokens.question == i].tolist(), rel=1e-2, abs=1e-3)


def test_choice_is_the_likeliest_option(mllm, asked):
    for p in predict(mllm, asked):
        if p.task == "choice":
            assert len(p.log_probs) == 4
            options = ("red", "green apple", "blue", "none")
            # "green apple" has one token more than the others, and each has the end of sequence.
            assert p.option_tokens[0] == p.option_tokens[2] == 2 and p.option_tokens[1] > 2
            whole = [mean * n for mean, n in zip(p.log_probs, p.option_tokens, strict=True)]
            assert p.answer == options[max(range(4), key=lambda i: whole[i])]
            assert p.reference == "green apple"


def test_options_are_scored_with_the_end_of_sequence(mllm, asked):
    found = next(p for p in predict(mllm, asked[:1]) if p.task == "choice")
    prompt = choice_prompt("Which one?", tuple(found.options))
    alone = [replace(asked[0], vqa=(VQA(prompt, option),), choices=(), clozes=()) for option in found.options]
    with torch.no_grad():
        for group, mean, n in zip(alone, found.log_probs, found.option_tokens, strict=True):
            logits, tokens = plain_logits(mllm, [group])
            plain = logits.log_softmax(-1)[torch.arange(len(tokens.labels)), tokens.labels]
            assert tokens.labels[-1] == mllm.encoder.eos and len(plain) == n
            assert mean * n == pytest.approx(plain.sum().item(), rel=1e-4)


def test_whether_the_end_of_sequence_was_predicted_is_noted(mllm, asked):
    class Unended(Protocol):
        name = "published"

        def ask_open(self, vqa, group):
            return [replace(q, labels=Labels.UNENDED) for q in super().ask_open(vqa, group)]

    for protocol, ended in ((Protocol(), True), (Unended(), False)):
        found = [p for p in predict(mllm, asked, protocol=protocol) if p.task == "generation"]
        assert {p.ended for p in found} == {ended}
        ids = [mllm.encoder.encode(VQA(p.question, p.reference), True).answer for p in found]
        assert [len(p.correct) for p in found] == [len(answer) - (not ended) for answer in ids]


def test_model_keeps_its_mode(mllm, asked):
    mllm.train()
    predict(mllm, asked[:1])
    assert mllm.training and not mllm.base.model.vision_tower.training


def test_kl_to_itself_is_zero(mllm, asked):
    found = [p for p in predict(mllm, asked, gold=mllm) if p.task == "generation"]
    assert all(p.kl_gold == pytest.approx(0, abs=1e-5) for p in found)


def generation(split, number, answer, log_probs, private_tokens, correct, reference="They live in Oslo now."):
    return Prediction(
        split,
        "1",
        "generation",
        number,
        "Where?",
        reference,
        answer,
        ("Oslo",),
        log_probs,
        correct,
        private_tokens,
        0.5,
        ended=False,
    )


def test_summary_in_plain_numbers():
    found = [
        generation("test", 0, "They live in Oslo now.", [-1.0, -3.0], [False, True], [False, True]),
        generation("test", 1, "no no no no no no", [-2.0, -2.0], [False, True], [True, False]),
        Prediction("test", "1", "cloze", 0, "In __.", "Oslo", "it is OSLO"),
        Prediction("test", "1", "choice", 0, "?", "a", "b", (), [-1.0, -0.5]),
        Prediction("test", "1", "choice", 1, "?", "a", "a", (), [-0.1, -0.5]),
        generation("retain", 0, "They live in Oslo now.", [0.0, 0.0], [False, True], [True, True]),
    ]
    summary = summarise(found)
    assert set(summary) == {"test", "retain", "overall"}
    test = summary["test"]
    assert test["n"] == 2
    assert test["accuracy"] == 0.5 and test["cloze"] == 1.0
    assert test["keyword_match"] == 0.5
    assert test["answer_probability"] == pytest.approx(math.exp(-2))
    assert test["private_probability"] == pytest.approx((math.exp(-3) + math.exp(-2)) / 2)
    assert test["template_probability"] == pytest.approx((math.exp(-1) + math.exp(-2)) / 2)
    assert test["extraction_strength"] == pytest.approx((0.5 + 0.0) / 2)
    assert test["rouge_l"] == pytest.approx(0.5)
    assert test["repetition"] == pytest.approx((0 + 0.75) / 2)
    assert test["kl_gold"] == 0.5
    assert summary["retain"]["keyword_match"] == 1.0 and "accuracy" not in summary["retain"]


def test_extraction_strength_of_an_answer_without_its_end():
    """P10: open-unlearning leaves 1 / L where nothing is extracted."""
    found = generation("forget", 0, "They live.", [-1.0, -1.0], [False, False], [True, False])
    assert summarise([found])["forget"]["extraction_strength"] == 0


@pytest.fixture
def scripted(monkeypatch):
    """A model that says what the shown person's ID stands for."""

    def script(says):
        def generate(mllm, groups, max_new_tokens):
            assert max_new_tokens == 6
            return [[says(g, q) for q in g.vqa] for g in groups]

        monkeypatch.setattr(knowledge, "generate", generate)

    return script


@pytest.fixture
def people(data):
    a, b = data.people()[:2]
    towns = {"A": ("Oslo", a.images), "B": ("Rome", b.images)}
    return {k: Person(k, images, (VQA("Where?", f"In {town}.", (town,)),)) for k, (town, images) in towns.items()}


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (lambda g, q: "In Oslo." if g.image.key == KEYS["A"] else "In Rome.", Knowledge(1, 1, 0, 1)),  # looks
        (lambda g, q: "In Oslo.", Knowledge(1, 0, 1, 1)),  # knows the question by heart
        (lambda g, q: "In Paris.", Knowledge(0, 0, 0, 1)),  # knows nothing
    ],
)
def test_swap_tells_looking_from_reciting(people, scripted, says, expected):
    KEYS.update({k: p.images[0].key for k, p in people.items()})
    group = ImageGroup("A", people["A"].images[0], Split.FORGET, people["A"].vqa)
    assert measure_knowledge(scripted(says), [group], people, ["B"], 6) == expected


KEYS = {}


def test_without_anybody_else_only_knowledge_is_measured(people, scripted, caplog):
    group = ImageGroup("A", people["A"].images[0], Split.FORGET, people["A"].vqa)
    with caplog.at_level("INFO"):
        assert measure_knowledge(scripted(lambda g, q: "In Oslo."), [group], people, [], 6) == Knowledge(
            1, None, None, 0
        )
    assert "nobody is retained with a photo" in caplog.text


def test_text_only_questions_are_not_swapped(people, scripted):
    KEYS.update({k: p.images[0].key for k, p in people.items()})
    text = ImageGroup("A", None, Split.FORGET, people["A"].vqa)
    group = ImageGroup("A", people["A"].images[0], Split.FORGET, people["A"].vqa)

    def says(g, q):
        return "In Rome." if g.image is not None and g.image.key == KEYS["B"] else "In Oslo."

    assert measure_knowledge(scripted(says), [text], people, ["B"], 6) == Knowledge(1, None, None, 0)
    assert measure_knowledge(scripted(says), [text, group], people, ["B"], 6) == Knowledge(1, 1, 0, 1)


def test_nothing_private(people):
    group = ImageGroup("A", people["A"].images[0], Split.FORGET, (VQA("Q", "A"),))
    with pytest.raises(UserError, match="nothing to unlearn"):
        measure_knowledge(None, [group], people, ["B"])


@pytest.mark.parametrize("training", [True, False])
def test_a_model_that_is_asked_stays_in_its_mode(mllm, groups, monkeypatch, training):
    """Whether it answers, or breaks off: who catches the error may go on training."""
    mllm.train(training)
    monkeypatch.setattr(mllm, "assemble", lambda *given: pytest.fail("broken"))
    with pytest.raises(pytest.fail.Exception, match="broken"):
        predict(mllm, groups)
    assert mllm.training == training
    with pytest.raises(pytest.fail.Exception, match="broken"):
        knowledge.measure_health(mllm, groups, answers=False)
    assert mllm.training == training


def test_a_model_without_numbers_is_refused(mllm, asked):
    with torch.no_grad():
        mllm.head.weight.fill_(math.nan)
    with pytest.raises(UserError, match="probabilities are not numbers"):
        predict(mllm, asked)
