"""Whom attacks are about."""

from dataclasses import replace

import pytest

from viker_lightning.attacks import gather, read_data
from viker_lightning.data.records import person_name
from viker_lightning.errors import UserError
from viker_lightning.runs import read_run


def test_whom(material):
    forget = {person_name(p.id) for p in material.people}
    kept, others = ({person_name(p.id) for p in people} for people in (material.kept, material.others))
    assert forget and len(kept) == len(forget) and not forget & (kept | others) and not kept & others
    assert {g.person for g in material.forget} == forget and {g.person for g in material.retain} == kept
    assert {g.person for g in material.test} <= forget
    assert all(q.private for g in (*material.asked, *material.test) for q in g.vqa)
    assert material.asked == [*material.forget, *material.retain]


def test_fewer_people_and_another_seed(pair, material):
    data = read_data(read_run(pair[1]))
    one = gather(data, people=1)
    assert len({g.person for g in one.forget}) == len({g.person for g in one.retain}) == 1
    assert gather(data, people=1).fingerprint() == one.fingerprint() != material.fingerprint()
    assert gather(data, seed=1).fingerprint() != material.fingerprint() == gather(data).fingerprint()


def test_data_that_cannot_be_read(pair):
    run = read_run(pair[0])
    run.config["data"] = {"class_path": "nowhere.Nothing"}
    with pytest.raises(
        UserError, match=r"its config.yaml names data that cannot be read \(nowhere.Nothing: .*--data_of"
    ):
        read_data(run)


def test_nothing_private(material):
    data = read_data_without_private(material)
    with pytest.raises(UserError, match="no question about the forget set has a private span"):
        gather(data)


def read_data_without_private(material):
    class Bare:
        root = "mini/ci"

        def evaluation(self, split, modality):
            groups = material.data.evaluation(split, modality)
            return [replace(g, vqa=tuple(replace(q, private=()) for q in g.vqa)) for g in groups]

    return Bare()
