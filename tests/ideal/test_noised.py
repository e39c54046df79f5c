"""Noise on an image, and what is left alone."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from viker_lightning.data.records import ImageGroup, Picture
from viker_lightning.ideal import add_noise
from viker_lightning.ideal.noised import Noised


def plain(*colours, side=60):
    """A picture of vertical stripes."""
    pixels = np.repeat(np.array(colours, dtype=np.uint8), side, axis=0)[None].repeat(side, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Picture(file.getvalue(), "stripes")


def noise_of(picture, noise):
    return np.asarray(add_noise(picture, noise).open(), float) - np.asarray(picture.open(), float)


def test_noise_is_gaussian_of_every_pixel_by_itself():
    found = noise_of(plain((128, 128, 128), (120, 130, 140)), 0.1)
    assert found.mean() == pytest.approx(0, abs=0.6) and found.std() == pytest.approx(25.5, rel=0.02)
    assert np.mean(np.abs(found) < 25.5) == pytest.approx(0.683, abs=0.02)
    channels = np.corrcoef(found.reshape(-1, 3).T)
    assert np.abs(channels - np.eye(3)).max() < 0.05
    neighbours = np.corrcoef(found[:, 1:].ravel(), found[:, :-1].ravel())[0, 1]
    assert abs(neighbours) < 0.05


def test_noise_stays_within_the_range_of_pixels():
    """Half of it is cut off of black and of white; none of it comes out at the other end."""
    black, white = noise_of(plain((0, 0, 0)), 0.1), noise_of(plain((255, 255, 255)), 0.1)
    assert black.min() == 0 and 60 < black.max() < 160 and (black == 0).mean() == pytest.approx(0.5, abs=0.03)
    assert white.max() == 0 and -160 < white.min() < -60 and (white == 0).mean() == pytest.approx(0.5, abs=0.03)


def test_noise_differs_between_pictures():
    one, other = noise_of(plain((128, 128, 128)), 0.1), noise_of(plain((128, 128, 129)), 0.1)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.05
    assert add_noise(plain((1, 2, 3)), 0.1).source == "stripes, noised"


def test_what_is_not_to_be_noised_is_shown_as_it_is(groups):
    """Groups without image, and every image where there is an instruction alone."""
    (first, *_), text = groups, ImageGroup("001", None, vqa=groups[0].vqa)
    instructed = Noised(0.0, " Look away. ").groups([first, text])
    asked = tuple(replace(v, question=f"Look away. {v.question}") for v in first.vqa)
    assert instructed == [replace(first, vqa=asked), replace(text, vqa=asked)]
    assert instructed[0].image is first.image
    noised = Noised(0.2, "").groups([first, text])
    assert noised[0].image.key == add_noise(first.image, 0.2).key and noised[0].vqa == first.vqa
    assert noised[1] == text
