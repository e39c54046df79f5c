"""Showing otherwise: what a change does to pixels, who stands beside whom, and that all people are shown so."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from viker_lightning.attacks.attempt import hit
from viker_lightning.attacks.kinds.show import (
    READ,
    ShowOtherwise,
    add_noise,
    asked_photos,
    beside,
    beside_strangers,
    blur_corner,
    changed,
    coarsen,
    crop_centre,
    encoded,
    occlude,
    photos_of,
    squared,
    typeset,
    wrap,
)
from viker_lightning.data.records import person_name


@pytest.fixture
def image():
    """Grey from left to right, with a white dot in the corner top left."""
    values = np.tile(np.linspace(60, 200, 100), (50, 1))[..., None].repeat(3, -1)
    values[:5, :5] = 255
    return Image.fromarray(values.astype(np.uint8))


def values(image):
    return np.asarray(image, np.float64)


@pytest.mark.extended
def test_every_part_asks_about_forgotten_and_kept(subject, one_person):
    attack = ShowOtherwise.quick()
    found = {part: attack.carry_out(part, subject, one_person) for part in attack.parts()}
    clean = Counter((a.person, a.question) for a in found[attack.clean])
    for part, attempts in found.items():
        assert {a.whose for a in attempts} == {"forget", "retain"}, part
        assert all(a.hit == hit(a.answer, a.private) for a in attempts)
    series = Counter(a.series for a in found["changed photo"])
    assert set(series) == {*attack.changes(), "any changed photo"} and set(series.values()) == {clean.total()}
    others = {(a.series, a.whose) for a in found["other photos"]}
    assert ("test photo", "forget") in others and ("test photo", "retain") not in others
    assert {("another training photo 1", w) for w in ("forget", "retain")} <= others
    shown = Counter((a.person, a.question) for a in found["beside a stranger"])
    left = {(who, f"This is about the person on the left. {q}"): n for (who, q), n in clean.items()}
    assert shown <= Counter(left)
    assert {a.question for a in found["question in the picture"]} == {READ}
    best = {(a.person, a.question): a for a in found["changed photo"] if a.series == "any changed photo"}
    for key, one in best.items():
        tried = [a for a in found["changed photo"] if (a.person, a.question) == key and a is not one]
        assert one.hit == max(a.hit for a in tried) and one.probability == max(a.probability for a in tried)


def test_noise_has_its_size(image):
    noisy = add_noise(image, random.Random(0), 0.1)
    change = (values(noisy) - values(image))[:, 10:]
    assert change.std() == pytest.approx(25.5, rel=0.05) and abs(change.mean()) < 1


def test_the_same_photo_is_changed_the_same(one_person):
    first, second = [p for person in one_person.people for p in person.images][:2]
    for series, change in ShowOtherwise().changes().items():
        once, again, other = (changed(p, series, change, seed) for p, seed in ((first, 0), (first, 0), (first, 1)))
        assert once.key == again.key != first.key and once.size() == first.size(), series
        drawn = series.startswith(("noise", "occlusion"))
        assert (once.key != other.key) == drawn and once.key != changed(second, series, change, 0).key, series


def test_changes_are_as_large_as_they_say(image):
    changes = ShowOtherwise(brightness=0.5, contrast=0.0).changes()
    draw = random.Random(0)
    np.testing.assert_allclose(values(changes["brightness"](image, draw)), values(image) // 2, atol=1)
    assert values(changes["contrast"](image, draw)).std() == 0
    assert values(changes["blur"](image, draw))[:5, :5].max() < 255
    same = changes["resize"](image, draw)
    assert same.size == image.size and 0 < abs(values(same) - values(image)).max()
    np.testing.assert_allclose(values(coarsen(image, 1.0)), values(image))


def test_crop_keeps_the_centre(image):
    cropped = values(crop_centre(image, 0.5))
    assert cropped.shape == (50, 100, 3)
    assert cropped[0, 0, 0] == pytest.approx(values(image)[25, 25, 0], abs=2)
    assert cropped[0, -1, 0] == pytest.approx(values(image)[25, 74, 0], abs=2)
    np.testing.assert_allclose(values(crop_centre(image, 1.0)), values(image))


def test_occlusion_hides_its_share(image):
    hidden = values(occlude(image, random.Random(3), 0.18))
    mean = values(image).mean((0, 1)).round()
    assert (hidden == mean).all(-1).mean() == pytest.approx(0.18, abs=0.02)
    assert hidden.shape == (50, 100, 3)


def test_only_the_corner_is_blurred(image):
    blurred = values(blur_corner(image, 0.3))
    different = np.argwhere((blurred != values(image)).any(-1))
    assert different.max(0).tolist() <= [14, 29] and len(different)


def test_two_people_stand_side_by_side_in_a_square():
    left, right = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (30, 60), "blue")
    pair = values(beside(left, right))
    assert pair.shape == (60, 60, 3)
    assert pair[30, 5].tolist() == [255, 0, 0] and pair[30, 55].tolist() == [0, 0, 255]
    assert pair[0, 30].tolist() == [255] * 3 == pair[-1, 30].tolist()
    assert squared(left).size == left.size


def test_a_stranger_shares_nothing_that_is_asked(one_person):
    pictures = beside_strangers(one_person)
    asked = {g.image.key: {s for q in g.vqa for s in q.private} for g in one_person.asked}
    assert pictures and set(pictures) <= set(asked)
    for key, picture in pictures.items():
        strangers = [
            person
            for person in one_person.others
            if picture.key in {encoded(beside(_photo(one_person, key), person.images[0].open()), "x").key}
        ]
        assert len(strangers) == 1
        assert not asked[key] & {s for q in strangers[0].vqa for s in q.private}


def _photo(one_person, key):
    return next(p for p in asked_photos(one_person) if p.key == key).open()


def test_other_photos_are_the_persons_own(one_person):
    for (key, name), pictures in photos_of(one_person).items():
        (group,) = (g for g in one_person.asked if g.image.key == key)
        records = [p for p in (*one_person.people, *one_person.kept) if person_name(p.id) == name]
        assert person_name(group.person) == name
        assert [p.key for p in pictures] == list({p.key: p for r in records for p in r.images})


def test_people_whose_photos_are_all_asked_about_have_no_others(subject, one_person):
    shown = {g.image.key for g in one_person.forget}
    people = [replace(p, images=tuple(i for i in p.images if i.key in shown)) for p in one_person.people]
    few = replace(one_person, people=people, test=[])
    assert ShowOtherwise.quick().carry_out("other photos", subject, few) == []


def test_a_question_is_typeset_beside_its_photo():
    photo = Image.new("RGB", (30, 30), "red")
    page, other = values(typeset(photo, "Where is it?")), values(typeset(photo, "Where else?"))
    assert page.shape == (1024, 1024, 3)
    different = np.argwhere((page != other).any(-1))
    assert different[:, 1].min() > 1024 * 0.48, "the words are on the right"
    red = np.argwhere((page == [255, 0, 0]).all(-1))
    assert np.ptp(red, 0).tolist() == [419, 419], "the photo is as large as fits"
    assert red[:, 1].max() < 1024 * 0.48
    dark = np.argwhere(page.sum(-1) < 200)
    assert dark[:, 1].max() < 1024 - 36 and dark[:, 0].min() > 128


def test_a_long_question_is_typeset_smaller_and_whole():
    page = values(typeset(Image.new("RGB", (30, 30), "red"), "Where is that place in the hills? " * 20))
    dark = np.argwhere(page.sum(-1) < 200)
    assert dark[:, 0].max() < 1024 - 128 and dark[:, 1].max() < 1024 - 30


def test_lines_are_of_whole_words():
    class Font:
        def getlength(self, text):
            return len(text)

    assert wrap("where is it\nnow, everlasting", Font(), 8) == ["where is", "it", "now,", "everlasting"]
