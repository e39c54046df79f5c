"""What is seen of an image file: the right way up, with its own greys, and only if it is whole."""

import hashlib
import io
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import viker_lightning
from viker_lightning.data import image_files
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import Picture
from viker_lightning.errors import UserError
from viker_lightning.models.vision import FrozenFeatures

DRAW = np.random.default_rng(0)
JPEGS = {
    "plain": {"quality": 90},
    "not subsampled": {"quality": 75, "subsampling": 0},
    "optimised": {"quality": 75, "optimize": True},
    "restarts": {"quality": 75, "restart_marker_blocks": 3},
    "progressive": {"quality": 95, "progressive": True},
}


def stored(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width=97, height=61):
    return Image.fromarray(DRAW.integers(0, 256, (height, width, 3), np.uint8))


def refused(data):
    picture = Picture(data, "here.png")
    with pytest.raises(UserError) as error:
        picture.verify()
    said = str(error.value)
    assert said.startswith("here.png: not a readable image (") and "\n" not in said
    return said


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_not_white(kind):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    picture = Picture(stored(Image.fromarray(values), kind), "here")
    picture.verify()
    assert np.array(picture.open())[0].tolist() == [[v] * 3 for v in (0, 1, 128, 255)]


def flat(mode, colours):
    image = Image.new(mode, (len(colours), 1))
    image.putdata(colours)
    return image


INDEXED = flat("P", [0, 1, 0])
INDEXED.putpalette([255, 0, 0, 0, 0, 255])
EXACT = {"lossless": True, "exact": True}
THROUGH = {  # red (or 60), something that is not seen, red again
    "RGBA": (stored(flat("RGBA", [(255, 0, 0, 255), (0, 0, 255, 0), (255, 0, 0, 255)])), [255, 0, 0]),
    "WebP": (stored(flat("RGBA", [(255, 0, 0, 255), (0, 0, 255, 0)] * 2), "WEBP", **EXACT), [255, 0, 0]),
    "TIFF": (stored(flat("RGBA", [(255, 0, 0, 255), (0, 0, 255, 0), (255, 0, 0, 255)]), "TIFF"), [255, 0, 0]),
    "grey with alpha": (stored(flat("LA", [(60, 255), (90, 0), (60, 255)])), [60, 60, 60]),
    "a colour": (stored(flat("RGB", [(255, 0, 0), (0, 0, 255), (255, 0, 0)]), transparency=(0, 0, 255)), [255, 0, 0]),
    "a grey": (stored(flat("L", [60, 90, 60]), transparency=90), [60, 60, 60]),
    "palette": (stored(INDEXED, transparency=1), [255, 0, 0]),
    "palette with alpha": (stored(INDEXED, transparency=bytes([255, 0])), [255, 0, 0]),
    "GIF": (stored(INDEXED, "GIF", transparency=1), [255, 0, 0]),
    "16 bits": (
        stored(Image.fromarray(np.array([[60, 90, 60]], np.uint16) * 257), transparency=90 * 257),
        [60, 60, 60],
    ),
}


@pytest.mark.parametrize("kind", THROUGH)
def test_what_is_transparent_stands_on_white(kind):
    """The colours below are not seen, and features made from them are not found again."""
    data, colour = THROUGH[kind]
    picture = Picture(data, "here")
    picture.verify()
    found = np.array(picture.open())[0].tolist()
    assert found[:3] == [colour, [255, 255, 255], colour]
    assert picture.key != hashlib.sha256(data).hexdigest()[:32]


def test_half_transparent_is_half_white_and_opaque_is_what_it_was():
    picture = Picture(stored(flat("RGBA", [(255, 0, 0, 128)])), "here")
    assert np.abs(np.array(picture.open())[0, 0].astype(int) - [255, 127, 127]).max() <= 1
    image = noise()
    whole = Image.merge("RGBA", (*image.split(), Image.new("L", image.size, 255)))
    picture = Picture(stored(whole), "here")
    assert picture.open().tobytes() == image.tobytes()
    assert picture.key == hashlib.sha256(picture.data).hexdigest()[:32], "what was kept of it is found again"


def test_grey_of_32_bits_has_no_white():
    for values in (np.zeros((2, 2), np.int32), np.zeros((2, 2), np.float32)):
        said = refused(stored(Image.fromarray(values), "TIFF"))
        assert "grey values of 32 bits, of which no file says what is white; save it with 8 or 16" in said


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_stand_upright(kind, orientation):
    """All eight orientations of a corner that is red, and a second one that is blue."""
    upright = Image.new("RGB", (48, 32))
    upright.paste((255, 0, 0), (0, 0, 16, 16))
    upright.paste((0, 0, 255), (32, 0, 48, 16))
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}  # the others undo themselves
    turn = image_files.TURNS.get(orientation)
    lying = upright if turn is None else upright.transpose(back.get(orientation, turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    picture = Picture(stored(lying, kind, exif=exif, **lossless), "here")
    picture.verify()
    found = picture.open()
    assert found.size == picture.size() == (48, 32)
    assert np.abs(np.array(found, int) - np.array(upright, int)).max() < 40


def test_damaged_exif_is_no_damaged_photo():
    picture = Picture(stored(noise(), "JPEG", exif=b"Exif\0\0no such thing"), "here")
    picture.verify()
    assert picture.size() == picture.open().size == (97, 61)


def test_identity_follows_what_is_seen(tmp_path):
    """Features made before photos were turned are not found again; those of all other photos are."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = noise(16, 16)
    plain, turned = (Picture(stored(image, "JPEG", **more), "here") for more in ({}, {"exif": exif}))
    deep = Picture(stored(Image.fromarray(np.zeros((4, 4), np.uint16))), "here")
    of_bytes = [hashlib.sha256(p.data).hexdigest()[:32] for p in (plain, turned, deep)]
    assert plain.key == of_bytes[0] and turned.key != of_bytes[1] and deep.key != of_bytes[2]
    assert FrozenFeatures._file(tmp_path, turned.key) != FrozenFeatures._file(tmp_path, of_bytes[1])


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_cut_and_ended_is_noticed(kind):
    data = stored(noise(), "JPEG", **JPEGS[kind])
    for whole in (data, data + bytes(7), data[:-2] + b"\xff" + data[-2:], data + stored(noise(), "JPEG")[:500]):
        Picture(whole, "whole").verify()
    scan = data.rfind(b"\xff\xda") + 14
    for part in (0.1, 0.5, 0.9):
        cut = data[: scan + int(part * (len(data) - scan))] + b"\xff\xd9"
        assert "JPEG data are missing before the end marker" in refused(cut), part


def test_a_grey_jpeg_is_whole():
    """It looks like one of which all is missing."""
    for options in JPEGS.values():
        Picture(stored(Image.new("RGB", (300, 200), (128, 128, 128)), "JPEG", **options), "grey").verify()


def test_photos_of_many_sizes_are_whole():
    for i in range(40):
        size = random.Random(i).choices(range(1, 70), k=2)
        mode = ("RGB", "L", "CMYK")[i % 3]
        Picture(stored(noise(*size).convert(mode), "JPEG", progressive=i % 2 == 0, quality=60 + i), "whole").verify()


def test_phone_photos_that_hold_a_second_picture():
    both = io.BytesIO()
    noise().save(both, "MPO", save_all=True, append_images=[noise(20, 20)])
    picture = Picture(both.getvalue(), "here")
    picture.verify()
    assert Image.open(both).format == "MPO" and picture.size() == (97, 61)
    first = both.getvalue().index(b"\xff\xd9")
    assert "are missing" in refused(both.getvalue()[: first - 2000] + both.getvalue()[first:])


@pytest.mark.parametrize("kind", ["EPS", "PPM", "ICO", "JPEG2000", "PDF"])
def test_other_formats_are_not_opened(kind, monkeypatch):
    monkeypatch.setattr(subprocess, "check_call", lambda *args, **kwargs: pytest.fail("Ghostscript was started"))
    data = stored(noise(64, 64), kind)
    assert "unknown format; PNG, JPEG, WebP, BMP, GIF and TIFF are read" in refused(data)
    with pytest.raises(UserError, match="unknown format"):
        Picture(data, "here").open()


def test_every_drawn_picture_is_what_it_was():
    for kind in ("people", "scenes", "pets"):
        (picture,) = irrelevant_images(kind, 1, size=32)
        there = Image.open(io.BytesIO(picture.data))
        assert picture.open().tobytes() == there.convert("RGB").tobytes() and picture.size() == there.size
        assert picture.key == hashlib.sha256(picture.data).hexdigest()[:32]


def test_pictures_are_opened_in_one_place():
    source = Path(viker_lightning.__file__).parent
    found = [
        p.name for p in source.rglob("*.py") for line in p.read_text("utf-8").splitlines() if "Image.open(" in line
    ]
    assert sorted(found) == ["image_files.py", "lmms_functions.py"]  # which stands alone beside exported tasks
