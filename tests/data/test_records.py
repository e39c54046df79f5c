"""Photos in memory and on disk are the same Picture; anything else is refused in a line."""

from io import BytesIO

import pytest
from PIL import ExifTags, Image, ImageChops

from viker_lightning.data.records import VQA, ImageGroup, Person, Picture
from viker_lightning.errors import UserError


def test_a_file_its_bytes_and_the_image_are_one_picture(tmp_path):
    image = Image.new("RGB", (8, 6), (200, 10, 40))
    image.save(encoded := BytesIO(), "PNG")
    (tmp_path / "a.png").write_bytes(encoded.getvalue())
    given = [tmp_path / "a.png", str(tmp_path / "a.png"), encoded.getvalue(), image]
    pictures = [Picture.of(one) for one in given]
    assert len({picture.key for picture in pictures}) == 1
    assert Picture.of(pictures[0]) is pictures[0] and pictures[0].size() == (8, 6)


def test_an_image_in_memory_looks_as_its_file_does(tmp_path):
    """Whatever its mode, and also where its EXIF turns it."""
    turned = Image.new("RGB", (8, 6), (200, 10, 40))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.new("CMYK", (8, 6), (10, 80, 90, 0)).save(tmp_path / "print.jpg")
    Image.new("RGBA", (8, 6), (10, 80, 90, 100)).save(tmp_path / "clear.png")
    for file in tmp_path.iterdir():
        seen, stored = Picture.of(Image.open(file)).open(), Picture.of(file).open()
        assert seen.size == stored.size == ((6, 8) if file.stem == "turned" else (8, 6))
        assert ImageChops.difference(seen, stored).getbbox() is None, file.name


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Picture.of(3), "^photo: found int, expected a file, bytes, a PIL image or a Picture$"),
        (lambda: Picture.of("gone.png"), "^gone.png: No such file or directory, expected an image file"),
        (lambda: Person("Ada", ("a.png",), ()), r"^Ada: found a photo of type str, expected Picture.of\(photo\)$"),
        (
            lambda: ImageGroup("Ada", Image.new("L", (2, 2)), vqa=(VQA("Who?", "Ada"),)),
            "^Ada: found a photo of type Image",
        ),
    ],
)
def test_what_is_no_photo_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()
