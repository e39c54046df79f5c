"""Relearning: who is taught, that they are learned, and that nobody else is asked about wrongly."""

from dataclasses import replace

import pytest
import torch
from torch.nn.utils import clip_grad_norm_, parameters_to_vector

from viker_lightning.attacks import Relearn, Subject, ask
from viker_lightning.attacks.kinds.relearn import ADAPTER, EVERYBODY, UNRELATED
from viker_lightning.data.records import person_name
from viker_lightning.models import MLLM, Lora


@pytest.fixture
def run(pair):
    return Subject("run", str(pair[0]), pair[0])


def shares(found, series, whose="forget"):
    by = {}
    for one in found:
        if (one.series, one.whose) == (series, whose):
            by.setdefault(one.x, []).append(one.probability)
    return {x: sum(values) / len(values) for x, values in by.items()}


def test_everybody_is_learned_again(run, material):
    attack = Relearn(steps=(0, 12), lr=0.02, batch_size=16)
    found = attack.carry_out(EVERYBODY, run, material)
    curve = shares(found, EVERYBODY)
    assert [*curve] == [0, 12] and curve[12] > 1.3 * curve[0]
    clean = [one for one in found if one.series == "as asked"]
    assert [replace(one, series=EVERYBODY, x=0) for one in clean] == [one for one in found if one.x == 0]
    plain = ask(run.load(), material.asked, "as asked")
    assert [(a.answer, a.hit) for a in clean] == [(a.answer, a.hit) for a in plain]
    assert [a.probability for a in clean] == pytest.approx([a.probability for a in plain], rel=1e-4)


def test_steps_in_parts_against_plain_ones(run, material):
    """Each question of a step passes by itself, and every answer token counts as much as in one pass."""
    attack = Relearn(steps=(0, 2), lr=0.01, batch_size=4, questions_per_image=2)
    mllm = run.load()
    mllm.train_fully()
    mllm.set_budgets(mllm.max_sequence_tokens, 1)
    plain = run.load()
    plain.train_fully()
    start = parameters_to_vector(plain.parameters()).detach().clone()
    optimizer = torch.optim.AdamW([p for p in plain.parameters() if p.requires_grad], lr=0.01, weight_decay=0.0)
    batches = attack._batches(material.people, 0)
    for _ in attack.train(mllm, material.people, 0):
        pass
    for _ in range(2):
        groups = next(batches)
        assert sum(len(g.vqa) for g in groups) <= 4
        loss = -plain.answer_tokens(plain.pack(groups)).log_probs.mean()
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
    one, other = (parameters_to_vector(model.parameters()) for model in (mllm, plain))
    assert (one - other).norm() < 1e-3 * (other - start).norm()


def test_the_adapter_is_as_strong_as_that_of_training(run, material, monkeypatch):
    class Adapted(Exception):
        """What it is told."""

    def adapt(mllm, lora):
        raise Adapted(lora)

    mllm = run.load()
    monkeypatch.setattr(Subject, "load", lambda subject: mllm)
    monkeypatch.setattr(MLLM, "adapt", adapt)
    with pytest.raises(Adapted) as told:
        Relearn(rank=4).carry_out(EVERYBODY, run, material)
    assert told.value.args == (Lora(r=4, alpha=8),)


def test_those_who_are_taught_are_not_asked_about(run, material):
    attack = Relearn(steps=(0, 1), shares=(0.5, 0.6), batch_size=8)
    people = {person_name(p.id) for p in material.people}
    if len(people) < 2:
        pytest.skip("one person to forget leaves nobody")
    found = attack.carry_out("relearning on 50%", run, material)
    asked = {one.person for one in found if one.whose == "forget"}
    assert asked < people and {one.series for one in found} == {
        f"relearning on {len(people - asked)} of {len(people)} people"
    }
    assert attack.carry_out("relearning on 60%", run, material) == []  # as many as 50 %


def test_others(run, material):
    found = Relearn(steps=(0, 1), batch_size=8).carry_out(UNRELATED, run, material)
    assert {one.person for one in found} == {g.person for g in material.asked}
    taught = Relearn()._taught(UNRELATED, material)
    assert {p.id for p in taught} <= {p.id for p in material.others} and len(taught) == len(material.people)


def test_the_adapter_goes_on_where_it_was(run, pair, material):
    found = Relearn(steps=(0, 1), batch_size=8).carry_out(ADAPTER, run, material)
    plain = ask(run.load_with_adapter(), material.asked, ADAPTER, 0)
    assert [a.probability for a in found if a.x == 0] == pytest.approx([a.probability for a in plain], rel=1e-5)
    assert shares(found, ADAPTER)[1] != shares(found, ADAPTER)[0]
    gold = Subject("gold", str(pair[1]), pair[1])
    assert gold.adapter is None and Relearn().carry_out(ADAPTER, gold, material) == []
