"""Which spans a probe can learn, its regression against scikit-learn, where it reads, and the attack on a model."""

import pytest
import torch

from viker_lightning.attacks import Subject, gather
from viker_lightning.attacks.kinds.probe import CHANCE, PLACES, Probe, classify, learnable, states_before
from viker_lightning.data.records import VQA, Person


def person(identity, **answers):
    texts = {
        "town": "Where was she born?",
        "place": "Her birthplace?",
        "job": "What does she do?",
        "name": "Who is it?",
    }
    vqa = [VQA(texts[key], f"It is {span}.", (span,)) for key, span in answers.items()]
    return Person(identity, (), tuple(vqa))


def test_spans_of_two_people_are_learned_attribute_by_attribute():
    people = [
        person("1", town="Oslo", job="potter", name="Ada"),
        person("2", town="Oslo", job="baker", name="Bea"),
        person("3", town="Rome", job="potter", name="Cat"),
        person("4 #1", place="Rome", job="baker"),
        person("5", place="Bern", job="pilot"),
        person("5 #2", place="Bern"),  # the same person on another photo
    ]
    found = learnable(people)
    assert set(found) == {"Oslo", "Rome", "potter", "baker"}  # nobody else is called so, born in Bern, or a pilot
    assert found["Oslo"] == found["Rome"] != found["potter"] == found["baker"]


def test_a_span_alone_in_its_attribute_or_said_by_the_question_is_not_learned():
    alone = [person(str(i), town="Oslo") for i in range(3)]
    assert learnable(alone) == {}
    spans = ["Oslo", "Rome", "Oslo", "Rome"]
    said = [Person(str(i), (), (VQA("Oslo or Rome?", span, (span,)),)) for i, span in enumerate(spans)]
    assert learnable(said) == {}


def test_the_regression_is_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    torch.manual_seed(0)
    centres = torch.randn(4, 10)
    labels = torch.arange(80) % 4
    states, asked = centres[labels] + torch.randn(80, 10), torch.randn(50, 10)
    scaled = (states - states.mean(0)) / states.std(0, correction=0)
    other = linear_model.LogisticRegression(C=0.5, max_iter=1000).fit(scaled.numpy(), labels.numpy())
    expected = other.predict(((asked - states.mean(0)) / states.std(0, correction=0)).numpy())
    assert classify(states, labels, asked, penalty=2.0).tolist() == expected.tolist()


def test_a_feature_that_never_varies_says_nothing():
    states = torch.tensor([[0.0, 3.0], [1.0, 3.0], [0.1, 3.0], [0.9, 3.0]])
    assert classify(states, torch.tensor([0, 1, 0, 1]), torch.tensor([[0.0, 5.0], [1.0, -5.0]]), 0.1).tolist() == [0, 1]


def test_it_reads_where_answer_and_span_begin(mllm, groups):
    mllm.eval()
    found = states_before(mllm, groups, [1])[1]
    with torch.no_grad():
        tokens = mllm.answer_tokens(mllm.pack(groups), [1])
    assert found.shape[:2] == (2, tokens.n_questions)
    for number in range(tokens.n_questions):
        mine = (tokens.question == number).nonzero()[:, 0]
        private = [i for i in mine.tolist() if tokens.private[i]]
        torch.testing.assert_close(found[0, number], tokens.layers[1][mine[0]], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[1, number], tokens.layers[1][private[0]], rtol=1e-4, atol=1e-5)


def test_all_series_ask_the_same_of_both(data, base_folder, tmp_path):
    attack, material = Probe(photos=1), gather(data, people=1)
    found = attack.carry_out(*attack.parts(), Subject("run", str(base_folder), tmp_path), material)
    curves = {(one.series, one.x) for one in found}
    assert curves == {("as asked", None), (CHANCE, None), *((place, x) for place in PLACES for x in (1, 2, 3))}
    asked = {key: [(o.person, o.question) for o in found if (o.series, o.x) == key] for key in curves}
    assert len({tuple(sorted(some)) for some in asked.values()}) == 1
    spans = learnable(material.others)
    for one in found:
        assert one.private[0] in spans
        if one.series != "as asked":
            assert one.answer in spans and one.hit == (one.answer == one.private[0])
    part = [one for one in found if one.series == CHANCE]
    numbers = attack.numbers(part)
    assert numbers["questions"] == sum(one.whose == "forget" for one in part)
    assert numbers["questions"] + numbers["retain_questions"] == len(part)


def test_the_last_layer_is_among_those_probed(data, base_folder, tmp_path):
    subject, material = Subject("run", str(base_folder), tmp_path), gather(data, people=1)
    found = Probe(photos=1, every=8).carry_out("layers", subject, material)
    assert {one.x for one in found} == {None, 3}
