from __future__ import annotations

import io
import random

import pytest
from PIL import Image

from viker_lightning.data.embedded import portraits, scenes


def differences(one: portraits.Identity, other: portraits.Identity) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("count", [16, 50, 120])
def test_people_are_distinct(count: int) -> None:
    people = portraits.cast("test", count)
    identities = [portraits.identity(person) for person in people]
    assert len(set(people)) == count
    assert min(differences(a, b) for i, a in enumerate(identities) for b in identities[:i]) >= 2
    assert max(sum(a[0] == b[0] for b in identities) for a in identities) <= 4


def test_no_more_people_than_can_be_told_apart() -> None:
    assert len(set(portraits.cast("test", 200))) == 200
    with pytest.raises(ValueError, match=r"^206 people: only 205 can be told apart"):
        portraits.cast("test", 206)


def test_one_trait_decides_nothing() -> None:
    # The guarantee behind draw_stranger: no two possible people differ in one trait only.
    assert all(len(portraits.HEADS) % n for n in range(2, len(portraits.HEADS)))
    possible = [portraits.identity(str(n)) for n in range(1500)]
    for trait in range(5):
        rest = {}
        for who in possible:
            assert rest.setdefault((*who[:trait], *who[trait + 1 :]), who) == who


def test_strangers_are_nobody() -> None:
    possible = {portraits.identity(str(n)) for n in range(3000)}
    rng = random.Random(0)
    keys = ("headVariant", "facialHairVariant", "accessoriesVariant", "skinColor", "clothingColor")
    for _ in range(100):
        _, traits = portraits.draw_stranger(rng, size=8)
        who = tuple(traits[key] for key in keys)
        assert who not in possible
        assert portraits.HEADS[portraits.benchmark_head(*who[1:])] != who[0]


def test_pictures_are_opaque_and_repeatable() -> None:
    data = portraits.draw_portrait("a", 0)
    assert data == portraits.draw_portrait("a", 0) != portraits.draw_portrait("a", 1)
    pictures = [data, portraits.draw_portrait("a", 100, 32), portraits.draw_stranger(random.Random(0))[0]]
    pictures += [scenes.draw_scene(random.Random(0))[0], scenes.draw_pet(random.Random(0))[0]]
    for picture, size in zip(pictures, (64, 32, 64, 64, 64), strict=True):
        image = Image.open(io.BytesIO(picture)).convert("RGBA")
        assert image.size == (size, size) and image.getchannel("A").getextrema() == (255, 255)


def test_held_out_views_share_no_background_with_training() -> None:
    def corners(views: range) -> set[tuple[int, ...]]:
        found = set()
        for person in portraits.cast("corners", 3):
            for view in views:
                found.add(Image.open(io.BytesIO(portraits.draw_portrait(person, view))).convert("RGB").getpixel((0, 0)))
        return found

    assert not corners(portraits.TRAINING_VIEWS) & corners(range(100, 106))
