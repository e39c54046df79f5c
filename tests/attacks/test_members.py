"""Ranks among a holdout by hand, norms of gradients against a plain backward pass, and the attack on a model."""

import pytest
import torch

from viker_lightning.attacks import Attempt, Subject, gather
from viker_lightning.attacks.kinds.membership import ANSWERS, GRADIENTS, Membership, gradient_norms, holdout, ranked
from viker_lightning.data.records import person_name


def attempt(whose="forget", hit=0.0, series="LOSS"):
    return Attempt(series, None, whose, "001", "Where?", ("Oslo",), "", hit)


def test_a_hit_is_the_share_of_the_holdout_that_scores_lower():
    found = ranked([attempt()] * 4, "zlib", [-5.0, -2.0, -1.5, 0.0], [-3.0, -2.0, -2.0, -1.0])
    assert [one.hit for one in found] == [0.0, 0.5, 0.75, 1.0]  # 1 of 4 is lower than -2, 2 are equal to it
    assert {one.series for one in found} == {"zlib"}


def test_the_mean_hit_is_the_area_and_one_percent_of_the_holdout_may_be_above():
    hits = [0.2, 0.98, 0.99, 1.0]
    found = [attempt(hit=hit) for hit in hits] + [attempt("retain", 0.5)]
    numbers = Membership().numbers(found)
    assert numbers == {
        "auc": pytest.approx(sum(hits) / 4),
        "tpr_at_1_fpr": 0.5,
        "retain_auc": 0.5,
        "retain_tpr_at_1_fpr": 0.0,
    }
    assert Membership().numbers([attempt(hit=1.0, series="as asked")]) == {}  # whether it said a span is no rank


def test_the_norm_is_that_of_the_whole_gradient(mllm, groups):
    mllm.model = mllm.model.merge_and_unload()
    mllm.requires_grad_(False).eval()
    norms = gradient_norms(mllm, groups[1:])
    assert len(norms) == 4 and all(p.grad is None for p in mllm.parameters())
    tokens = mllm.answer_tokens(mllm.pack(groups[1:]))  # packed together, each question keeps a gradient of its own
    weights = [p for p in mllm.language_model.parameters() if p.requires_grad]
    for number, loss in enumerate(tokens.mean_by_question(-tokens.log_probs)):
        gradients = torch.autograd.grad(loss, weights, retain_graph=True)
        expected = torch.stack([g.square().sum() for g in gradients]).sum().sqrt().item()
        assert norms[number] == pytest.approx(expected, rel=1e-4)


@pytest.mark.extended
def test_nobody_of_the_holdout_was_trained_on_and_all_they_say_was_heard(data):
    heard = {w for p in data.people(data.retain_ids) for q in p.vqa for s in q.private for w in s.split()}
    found = holdout(data)
    photos = {picture.key for p in [*data.people(), *data.base_people] for picture in p.images}
    assert found and all(g.image.key not in photos for g in found)
    assert {w for g in found for q in g.vqa for s in q.private for w in s.split()} <= heard


def test_elsewhere_the_known_people_are_the_holdout_unless_they_were_trained_on(data, monkeypatch):
    monkeypatch.setattr(type(data), "grammar", None)
    assert holdout(data) == []  # the embedded ones are taught to vanilla and gold
    monkeypatch.setattr(data, "base_people", [])
    people = {person_name(g.person) for g in holdout(data)}
    assert people and not people & {person_name(p.id) for p in data.people()}


def test_every_answer_has_a_rank_under_every_score(data, base_folder, tmp_path):
    subject, material = Subject("run", str(base_folder), tmp_path), gather(data, people=1)
    attack, asked = Membership.quick(), sum(len(g.vqa) for g in material.asked)
    found = [one for part in (ANSWERS, GRADIENTS) for one in attack.carry_out(part, subject, material)]
    series = ["as asked", "LOSS", "zlib", "Min-K", "Min-K++", "GradNorm"]
    assert list(dict.fromkeys(one.series for one in found)) == series
    assert len(found) == len(series) * asked and {one.whose for one in found} == {"forget", "retain"}
    assert all(0 <= one.hit <= 1 for one in found)


def test_a_small_gradient_tells_a_member(data, base_folder, tmp_path, monkeypatch):
    norms = "viker_lightning.attacks.kinds.membership.gradient_norms"
    monkeypatch.setattr(norms, lambda mllm, groups: [float(i) for i, _ in enumerate(q for g in groups for q in g.vqa)])
    monkeypatch.setattr("viker_lightning.attacks.kinds.membership.holdout", lambda data: material.asked)
    subject, material = Subject("run", str(base_folder), tmp_path), gather(data, people=1)
    found = Membership().carry_out(GRADIENTS, subject, material)  # the holdout comes last, with the largest norms
    assert found and {one.hit for one in found} == {1.0}


def test_without_a_holdout_only_the_clean_answers_are_there(data, base_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("viker_lightning.attacks.kinds.membership.holdout", lambda data: [])
    subject, material = Subject("run", str(base_folder), tmp_path), gather(data, people=1)
    assert {one.series for one in Membership().carry_out(ANSWERS, subject, material)} == {"as asked"}
    assert Membership().carry_out(GRADIENTS, subject, material) == []
