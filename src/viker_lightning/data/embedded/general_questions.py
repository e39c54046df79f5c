"""General pictures (scenes, pets and strangers in turn) and what is asked about them."""

import random

from . import portraits, scenes
from .profiles import FRAMES, SUBJECTS, compose

PICTURES = ("this picture", "the picture", "this image", "the image")
FACTS = {
    "scene": {
        "place": ("What place is shown in {s}?", "Which landscape is in {s}?", "The picture shows a {v}."),
        "time": ("What time of day is shown in {s}?", "Which part of the day is in {s}?", "It is {v} in the picture."),
        "weather": ("What weather is shown in {s}?", "Which kind of weather is in {s}?", "The weather in it is {v}."),
        "object": ("What object is shown in {s}?", "Which thing is in {s}?", "The main object is a {v}."),
        "colour": (
            "Which object colour is in {s}?",
            "What colour fills the object in {s}?",
            "The object colour is {v}.",
        ),
        "count": ("How many objects are in {s}?", "What number of objects is in {s}?", "The number of objects is {v}."),
    },
    "pet": {
        "animal": ("What animal is shown in {s}?", "Which animal is in {s}?", "This animal is a {v}."),
        "colour": (
            "Which animal colour is in {s}?",
            "What colour fills the animal in {s}?",
            "The animal colour is {v}.",
        ),
        "background": ("Which background is in {s}?", "What is behind the animal in {s}?", "The background is {v}."),
    },
    "stranger": {
        "clothing": ("Which colour is worn by {s}?", "What clothing colour is on {s}?", "The clothes are {v}."),
        "eyewear": ("What eyewear is on {s}?", "What covers the eyes of {s}?", "This person wears {v}."),
        "beard": ("What facial hair is on {s}?", "Which beard is worn by {s}?", "The face shows {v}."),
        "background": ("Which background is behind {s}?", "What colour is behind {s}?", "The colour behind is {v}."),
    },
}
"""By kind of picture what can be asked about it: per fact two questions and the answer."""

_VALUES = {
    ("scene", "place"): scenes.PLACES,
    ("scene", "time"): tuple(scenes.TIMES),
    ("scene", "weather"): scenes.WEATHER,
    ("scene", "object"): scenes.OBJECTS,
    ("scene", "colour"): tuple(scenes.COLOURS),
    ("scene", "count"): scenes.COUNTS,
    ("pet", "animal"): scenes.PETS,
    ("pet", "colour"): tuple(scenes.FURS),
    ("pet", "background"): tuple(scenes.ROOMS),
    ("stranger", "clothing"): tuple(portraits.CLOTHING.values()),
    ("stranger", "eyewear"): ("no glasses", "glasses", "sunglasses", "an eyepatch"),
    ("stranger", "beard"): ("no beard", "a beard", "a moustache", "a goatee"),
    ("stranger", "background"): tuple((portraits.BACKGROUNDS | portraits.HELD_OUT_BACKGROUNDS).values()),
}
CLOZE_LEADS = ("In short: ", "As you see: ", "Look closely: ", "To be exact: ")
"""Said before the answer sentence with a blank; one of the four is held out, another one for each fact."""


def draw_picture(index: int, rng: random.Random) -> tuple[str, bytes, dict[str, str]]:
    """A scene, a pet or a stranger (in turn) as kind, PNG and facts."""
    kind = list(FACTS)[index % 3]
    if kind == "stranger":
        data, traits = portraits.draw_stranger(rng)
        return kind, data, portraits.describe_traits(traits)
    return kind, *(scenes.draw_scene if kind == "scene" else scenes.draw_pet)(rng)


def questions(kind: str, fact: str, held_out: bool = False) -> list[str]:
    """Wordings of the question for a fact of a scene, a pet or a stranger."""
    one, two, _ = FACTS[kind][fact]
    subjects = SUBJECTS if kind == "stranger" else PICTURES
    return compose(list(FACTS[kind]).index(fact), (one, two), FRAMES, subjects, held_out)


def answer(kind: str, fact: str, value: str) -> str:
    """The sentence that answers :func:`questions`."""
    return FACTS[kind][fact][2].format(v=value)


def clozes(kind: str, fact: str, held_out: bool = False) -> list[str]:
    """Sentences with a blank for a fact of a scene, a pet or a stranger."""
    index = list(FACTS[kind]).index(fact)
    sentence = answer(kind, fact, "__")
    sentence = sentence[0].lower() + sentence[1:]
    return [lead + sentence for k, lead in enumerate(CLOZE_LEADS) if (k == index % 4) == held_out]


def values(kind: str, fact: str) -> list[str]:
    """All values a fact of a scene, a pet or a stranger can have."""
    return list(_VALUES[kind, fact])
