"""Doubles: who stands for whom, and what frozen models say behind them."""

from dataclasses import replace

import pytest
import torch

from support.plain_route import plain_ideal
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import VQA, ImageGroup
from viker_lightning.errors import UserError
from viker_lightning.ideal import Double, Doubles, References
from viker_lightning.ideal.plan import plan_of
from viker_lightning.methods import Forget, Method, Stranger, ViKeR
from viker_lightning.methods.base import Strangers
from viker_lightning.models import MLLM

NAMES = [f"Person {number}" for number in range(12)]


@pytest.fixture(scope="module")
def pictures():
    return irrelevant_images("people", 12, size=64)


@pytest.mark.parametrize("each", [1, 2, 3])
def test_nobody_shares_a_double_where_there_are_enough(pictures, each):
    people = NAMES[: len(pictures) // each]
    doubles = Doubles(people, pictures, each, seed=0)
    keys = [picture.key for person in people for picture in doubles[person]]
    assert len(keys) == len(people) * each == len(set(keys))


def test_doubles_are_drawn_by_name(pictures):
    drawn = Doubles(NAMES[:4], pictures, 2, seed=0)
    ids = [f"{name} #{number}" for name in NAMES[3::-1] for number in (1, 2)]
    several = Doubles(ids, pictures, 2, seed=0)
    assert all(drawn[name] == several[f"{name} #1"] == several[f"{name} #2"] for name in NAMES[:4])
    other = Doubles(NAMES[:4], pictures, 2, seed=1)
    assert any(drawn[name] != other[name] for name in NAMES[:4])


def test_all_get_doubles_where_there_are_too_few(pictures):
    doubles = Doubles(NAMES, pictures[:5], 2, seed=0)
    assert all(len({picture.key for picture in doubles[name]}) == 2 for name in NAMES)
    assert len({picture.key for name in NAMES for picture in doubles[name]}) == 5


def test_a_view_shows_each_person_one_double(pictures, groups):
    doubles = Doubles([group.person for group in groups], pictures, 2, seed=0)
    without = replace(groups[0], image=None)
    for number, view in enumerate(doubles.views([*groups, without])):
        assert [group.image for group in view[:-1]] == [doubles[group.person][number] for group in groups]
        assert view[-1] == without
        assert [group.vqa for group in view] == [group.vqa for group in (*groups, without)]
    assert doubles.views([without]) == [[without]]


def asked(mllm, pictures, groups, double, keep="memory", layers=()):
    method = type("Asking", (Method,), {"needs": (Forget(double=double),), "layers": layers})()
    doubles = Doubles([group.person for group in groups], pictures, double.each, seed=0)
    references = References(keep)
    references.prepare(mllm, plan_of(method, mllm.head, keep, [], [], lambda _: groups, doubles))
    return references, doubles


@pytest.mark.parametrize("keep", ["memory", "disk", "off"])
@pytest.mark.parametrize(("each", "level"), [(1, "kl"), (3, "kl"), (3, "log_prob"), (2, "full")])
def test_what_is_said_is_the_mean_behind_the_doubles(mllm, pictures, groups, each, level, keep, monkeypatch, tmp_path):
    """Each person's own ones; photos of a person and parts of a step share them."""
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path))
    references, doubles = asked(mllm, pictures, groups, Double(each=each, level=level), keep)
    found, full = references.look_up("forget", groups, mllm.pack(groups))
    plain = torch.cat([plain_ideal(mllm, [group], doubles[group.person]) for group in groups])
    labels = mllm.pack(groups).labels
    wanted = plain.gather(1, labels[:, None])[:, 0].log()
    torch.testing.assert_close(found["double"].log_prob, wanted, rtol=1e-3, atol=1e-4)
    if level == "kl":
        torch.testing.assert_close(found["double"].vector, plain @ mllm.head.weight.detach(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found["double"].entropy, torch.special.entr(plain).sum(-1), rtol=1e-3, atol=1e-4)
    if level == "full":
        torch.testing.assert_close(full["double"], plain, rtol=1e-3, atol=1e-5)
    elif keep == "memory":
        other = [ImageGroup(groups[0].person, groups[1].image, vqa=groups[0].vqa)]
        with monkeypatch.context() as patch:
            patch.setattr(MLLM, "frozen", lambda self: pytest.fail("asked the frozen model again"))
            again, _ = references.look_up("forget", other, mllm.pack(other))
        sizes = sum(len(mllm.encoder.encode(vqa, True).answer) for vqa in groups[0].vqa)
        assert torch.equal(again["double"].log_prob, found["double"].log_prob[:sizes])


@pytest.mark.parametrize("level", ["log_prob", "kl"])
def test_questions_with_and_without_photo_are_remembered_together(mllm, pictures, groups, level):
    """A question without photo has one view; asked apart first, then in one part, and kept for a checkpoint."""
    alone = [replace(groups[0], image=None)]
    both = [*alone, *groups[1:2]]
    references, _ = asked(mllm, pictures, [*alone, *groups], Double(each=2, level=level))
    for some in (alone, groups[1:2], both):
        found, _ = references.look_up("forget", some, mllm.pack(some))
    assert len(found["double"].log_prob) == len(mllm.pack(both).labels)
    assert any(references.state_dict().values())


def test_hidden_states_behind_the_double(mllm, pictures, groups):
    references, doubles = asked(mllm, pictures, groups, Double(), layers=(0, -1))
    found, _ = references.look_up("forget", groups, mllm.pack(groups))
    (shown,) = doubles.views(groups)
    with mllm.frozen():
        layers = mllm.answer_tokens(mllm.pack(shown), (0, -1)).layers
    torch.testing.assert_close(found["double"].layers, torch.stack([layers[0], layers[-1]], dim=1).float())


CALLED, STRANGE = {"Ada Lind": "Ada Lind", "Bo": "Bo Wei"}, ["Cleo Tarn", "Dag Moor", "Edda Finn"]


@pytest.fixture
def named():
    """Questions without photo about two people, and one that names nobody."""
    of_ada = (
        VQA("Where does Ada Lind live?", "Ada Lind lives in Corlune, says Ada.", ("Corlune",)),
        VQA("Where do they live?", "In Corlune.", ("Corlune",)),
    )
    of_bo = (VQA("What is Bo Wei's job?", "Wei's job is baker.", ("baker",)),)
    return [ImageGroup("Ada Lind (text)", None, vqa=of_ada), ImageGroup("Bo #1", None, vqa=of_bo)]


def test_names_are_drawn_as_photos_are(pictures):
    doubles = Doubles(["Bo #1", "Bo #2", "Ada Lind", "Cy"], pictures, 1, 0, CALLED, STRANGE)
    assert doubles.names.keys() == {"Ada Lind", "Bo Wei"} and len({*doubles.names.values()}) == 2
    again = Doubles(["Bo", "Ada Lind (text)"], pictures, 1, 0, CALLED, STRANGE)
    assert again.names == doubles.names and again["Bo"] == doubles["Bo #1"]
    alias = Doubles(["Bo #1", "author 5"], pictures, 1, 0, {**CALLED, "author 5": "Bo Wei"}, STRANGE)
    assert alias["author 5"] == alias["Bo #1"] and len(alias.names) == 1, "photo and name are those of one double"
    assert {*Doubles(CALLED, pictures, 1, 0, CALLED, STRANGE[:1]).names.values()} == {"Cleo Tarn"}, "too few for two"


def plain_by_name(mllm, doubles, groups):
    """One question after another, without packing: as it is, and with the other name, token by token."""
    found = []
    for group, (shown,) in zip(groups, ([view[0]] for view in (doubles.views([g])[0] for g in groups)), strict=True):
        for vqa, other in zip(group.vqa, shown.vqa, strict=True):
            own, theirs = (plain_text(mllm, one) for one in (vqa, other))
            answer = mllm.encoder.encode(vqa, False).answer
            instead = mllm.encoder.encode(other, False).answer
            behind = 0
            for token, p in zip(answer, own, strict=True):
                place = next((i for i in range(behind, len(instead)) if instead[i] == token), None)
                found.append(p if place is None else theirs[place])
                behind = behind if place is None else place + 1
    return torch.stack(found)


def plain_text(mllm, vqa):
    """``[T, V]`` of the frozen model, of one question without photo."""
    with mllm.frozen():
        return mllm.answer_tokens(mllm.pack([ImageGroup("", None, vqa=(vqa,))])).logits.softmax(-1)


@pytest.mark.parametrize(
    ("each", "level", "layers"), [(1, "kl", ()), (2, "kl", ()), (1, "full", (0, -1)), (1, "kl", (0, -1))]
)
def test_a_question_without_photo_is_asked_with_the_name_of_the_double(
    mllm, pictures, groups, named, each, level, layers
):
    """A token of the name keeps what is said of the question as it is; photos stand in the same batch."""
    method = type("Asking", (Method,), {"needs": (Forget(double=Double(each=each, level=level)),), "layers": layers})()
    both = [named[0], groups[0], named[1]]
    doubles = Doubles([group.person for group in both], pictures, each, 0, CALLED, STRANGE)
    references = References("memory")
    references.prepare(mllm, plan_of(method, mllm.head, "memory", [], [], lambda _: both, doubles))
    batch = mllm.pack(both)
    found, full = references.look_up("forget", both, batch)
    photo = torch.tensor([batch.pictures[batch.row_of[q]] is not None for q in batch.question])
    wanted = plain_by_name(mllm, doubles, named)
    log_prob = wanted.gather(1, batch.labels[~photo][:, None])[:, 0].log()
    torch.testing.assert_close(found["double"].log_prob[~photo], log_prob, rtol=1e-3, atol=1e-4)
    if level == "kl":
        vector = wanted @ mllm.head.weight.detach()
        torch.testing.assert_close(found["double"].vector[~photo], vector, rtol=1e-3, atol=1e-4)
    else:
        torch.testing.assert_close(full["double"][~photo], wanted, rtol=1e-3, atol=1e-5)
    behind = plain_ideal(mllm, [groups[0]], doubles[groups[0].person])
    log_prob = behind.gather(1, batch.labels[photo][:, None])[:, 0].log()
    torch.testing.assert_close(found["double"].log_prob[photo], log_prob, rtol=1e-3, atol=1e-4)
    own = torch.cat([plain_text(mllm, vqa) for group in named for vqa in group.vqa])
    differs = ~torch.isclose(own, wanted, atol=1e-4).all(1)
    assert differs.any() and not differs.all(), "names themselves, and whoever is not named, stay"
    if layers:
        assert found["double"].layers.shape[:2] == (len(batch.labels), 2)
        again, _ = references.look_up("forget", both, batch)
        assert torch.equal(again["double"].layers, found["double"].layers)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Double(each=0), "Double.each: found 0, expected at least 1"),
        (lambda: Double(count=3, each=4), "Double.each: found 4 of 3 strangers; raise count, or lower each"),
        (lambda: Double("forget"), "Double.pictures: found 'forget', who are no strangers"),
        (lambda: Strangers(double=Double()), "Strangers.double: strangers have no doubles"),
        (lambda: Stranger(k=3, doubles=4), "Stranger: doubles=4 must be 1 to k=3"),
        (lambda: ViKeR(doubles=0), "ViKeR: doubles=0 must be 1 to k=5"),
        (lambda: Stranger(names="names.txt"), "Stranger: names=names.txt are of doubles, found none; set doubles"),
    ],
)
def test_doubles_that_cannot_be(make, message):
    with pytest.raises(UserError, match=message):
        make()
