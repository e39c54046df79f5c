"""Where irrelevant images come from: drawn, a folder, the benchmark's own people, scikit-image's photos."""

import random

import pytest
from PIL import Image

from viker_lightning.data.embedded.portraits import draw_stranger
from viker_lightning.data.pictures import irrelevant
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import Picture
from viker_lightning.errors import DataError, UserError


def portraits(n: int, seed: int = 0) -> list[Picture]:
    rng = random.Random(seed)
    return [Picture(draw_stranger(rng, 64)[0], f"person {seed}/{i}") for i in range(n)]


@pytest.mark.parametrize("kind", ["scenes", "pets", "people"])
def test_drawn_images(kind):
    pictures = irrelevant_images(kind, 4, size=32)
    assert len({p.key for p in pictures}) == 4
    assert pictures[0].open().size == (32, 32)
    assert [p.key for p in pictures] == [p.key for p in irrelevant_images(kind, 4, size=32)]
    assert [p.key for p in pictures] != [p.key for p in irrelevant_images(kind, 4, seed=1, size=32)]


def test_copies_of_one_image_are_told(tmp_path, caplog):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(portraits(1)[0].data)
    assert len(irrelevant_images(str(tmp_path), 3)) == 3
    assert "only 1 of the 3 images chosen are different; remove copies" in caplog.text


def test_image_folder(tmp_path):
    for i, picture in enumerate(irrelevant_images("pets", 3, size=16)):
        (tmp_path / f"{i}.png").write_bytes(picture.data)
    assert len(irrelevant_images(str(tmp_path), 2)) == 2
    with pytest.raises(DataError, match=r"found 3 images.*need k=5"):
        irrelevant_images(str(tmp_path), 5)
    (tmp_path / "0.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"0\.png: not a readable image"):
        irrelevant_images(str(tmp_path), 3)
    with pytest.raises(DataError, match="neither a folder nor one of scenes"):
        irrelevant_images(str(tmp_path / "nowhere"), 5)


@pytest.mark.parametrize("kind", ["retain", "forget"])
def test_the_benchmark_s_own_people(kind):
    people = portraits(6)
    found = irrelevant_images(kind, 4, people=[*people, people[0]])
    assert len({p.key for p in found}) == 4 and {p.key for p in found} <= {p.key for p in people}
    assert found == irrelevant_images(kind, 4, people=[*people, people[0]])
    assert found != irrelevant_images(kind, 4, seed=1, people=people)
    with pytest.raises(DataError, match=f"'{kind}' needs pictures.*found none"):
        irrelevant_images(kind, 2)
    with pytest.raises(DataError, match="found 6 images, need k=7"):
        irrelevant_images(kind, 7, people=people)


def test_photos():
    pytest.importorskip("skimage")
    found = irrelevant_images("photos", len(irrelevant.PHOTOS))
    assert {p.source.rsplit("/", 1)[-1] for p in found} == set(irrelevant.PHOTOS)
    assert all(isinstance(p.open(), Image.Image) for p in found)
    with pytest.raises(DataError, match="found 10 images, need k=11"):
        irrelevant_images("photos", 11)


def test_photos_without_their_package(monkeypatch):
    monkeypatch.setattr(irrelevant, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs scikit-image.*pip install -e '\.\[photos\]'"):
        irrelevant_images("photos", 2)
