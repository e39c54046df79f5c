"""Portraits of invented people: DiceBear open-peeps drawings (CC0), one face per person in many views."""

import json
import math
import random
from collections import Counter
from functools import cache
from importlib.resources import files
from typing import Any

import resvg_py
from dicebear import Avatar, Style

# Left out: the bear, heads that look like another one at 64 px, and hair so wide that the face becomes small.
HEADS = (
    "afro bangs bangs2 bantuKnots bun bun2 buns cornrows cornrows2 dreads1 flatTop flatTopLong grayBun grayMedium "
    "grayShort hatBeanie hatHip hijab long longBangs medium1 medium2 medium3 mediumBangs mediumBangs2 mediumBangs3 "
    "mediumStraight mohawk mohawk2 noHair1 noHair3 pomp shaved1 shaved2 shaved3 short1 short3 short4 short5 turban "
    "twists"
).split()
FACIAL_HAIR = "none chin full full2 full3 full4 goatee1 goatee2 moustache2 moustache3 moustache5 moustache9".split()
ACCESSORIES = "none eyepatch glasses glasses3 glasses4 sunglasses".split()
SKINS = "#ffdbb4 #edb98a #d08b5b #ae5d29 #694d3d".split()
CLOTHING = {
    "#8fa7df": "blue",
    "#78e185": "green",
    "#ffcf77": "orange",
    "#e279c7": "purple",
    "#e78276": "red",
    "#9ddadb": "turquoise",
    "#fdea6b": "yellow",
}
HAIR = "#c93305 #d6b370 #e8e1e1 #724133 #f59797".split()
HAIR_PARTS = set(
    "bangs cornrows grayBun grayMedium grayShort mediumBangs2 mohawk mohawk2 noHair3 short4 full4 moustache9".split()
)

# Colours and expressions of training views, and those kept for held-out views.
BACKGROUNDS = {"#b9dcf7": "blue", "#bdebc0": "green", "#ffd0dc": "pink", "#fff3b8": "yellow", "#ececec": "white"}
HELD_OUT_BACKGROUNDS = {"#d9cdf6": "purple", "#ffdcb8": "orange"}
EXPRESSIONS = "smile smileBig calm serious cute awe solemn driven blank cheeky tired contempt".split()
HELD_OUT_EXPRESSIONS = "suspicious concerned explaining eyesClosed smileTeethGap eatingHappy".split()

TRAINING_VIEWS = range(30)
HELD_OUT_VIEWS = range(100, 102)

NOBODY = "nobody/"
"""Whoever's key begins so is a person of no benchmark: people the embedded model has met before it meets anybody."""

CAPTIONS = (
    "{name} stands before a {background} wall in {clothing} clothes, with {eyewear} and {beard}.",
    "{name} wears {clothing} clothes, {eyewear} and {beard}, and the wall behind is {background}.",
    "{name} is seen in {clothing} clothes, having {eyewear} and {beard}, with {background} all around.",
)
PARAPHRASE = "In front of a {background} wall we see {name}, who has {beard} and {eyewear} and wears {clothing}."

Identity = tuple[str, str, str, str, str]

# Upper edge of the hair where it is higher than the default, as a part of the full drawing: sets the zoom.
_TOP = dict(afro=0.09, bantuKnots=0.08, bun=0.0, bun2=-0.04, buns=0.04, hatHip=0.06, long=0.06, pomp=0.08, shaved1=0.08)
_TOP |= dict(
    shaved2=0.07, shaved3=0.04, dreads1=0.08, flatTopLong=0.07, mohawk=0.07, mohawk2=0.08, turban=0.08, twists=0.08
)


@cache
def _style() -> Style:
    return Style(json.loads(files("dicebear_styles").joinpath("open-peeps.json").read_text("utf-8")))


def benchmark_head(facial: str, accessories: str, skin: str, clothing: str) -> int:
    """The head (as an index) that makes these traits a benchmark person.

    The number of heads is prime and every weight is smaller, so two benchmark people differ in at least two traits,
    and anybody with another head is guaranteed not to be one.
    """
    return (
        13 * FACIAL_HAIR.index(facial)
        + 5 * ACCESSORIES.index(accessories)
        + 7 * SKINS.index(skin)
        + list(CLOTHING).index(clothing)
    ) % len(HEADS)


def _traits(rng: random.Random) -> tuple[str, str, str, str]:
    # Bare faces in half of the cases: a beard or glasses on everybody would hide who is who.
    facial = rng.choice(FACIAL_HAIR[1:]) if rng.random() < 0.45 else "none"
    accessories = rng.choice(ACCESSORIES[1:]) if rng.random() < 0.5 else "none"
    return facial, accessories, rng.choice(SKINS), rng.choice(list(CLOTHING))


@cache
def identity(person: str) -> Identity:
    """Head, facial hair, accessories, skin and clothing of a person; two of a benchmark differ in none or at least two.

    Whoever is :data:`NOBODY` has another head than anybody of these traits in a benchmark.
    """
    facial, accessories, skin, clothing = _traits(random.Random(f"identity/{person}"))
    head = benchmark_head(facial, accessories, skin, clothing) + person.startswith(NOBODY)
    return HEADS[head % len(HEADS)], facial, accessories, skin, clothing


def cast(prefix: str, count: int) -> list[str]:
    """Names ``count`` people (keys for :func:`draw_portrait`) that are easy to tell apart.

    No two share head and clothing colour or head and skin, and every head is used about equally often.
    """
    if count > (most := len(HEADS) * len(SKINS)):
        raise ValueError(f"{count} people: only {most} can be told apart")
    people: list[str] = []
    heads: Counter[str] = Counter()
    taken: set[tuple[str, str]] = set()
    limit = math.ceil(1.3 * count / len(HEADS))  # some slack, or the last head would take long to come up
    candidate = 0
    while len(people) < count:
        person = f"{prefix}/{candidate}"
        candidate += 1
        head, _, _, skin, clothing = identity(person)
        if heads[head] == limit or {(head, skin), (head, clothing)} & taken:
            continue
        heads[head] += 1
        taken |= {(head, skin), (head, clothing)}
        people.append(person)
    return people


def _draw(
    who: Identity, hair: str, expression: str, background: str, rng: random.Random, tilt: float, size: int
) -> bytes:
    head, facial, accessories, skin, clothing = who
    flip = rng.random() < 0.5
    top = _TOP.get(head, 0.11)
    scale = rng.uniform(0.97, 1.03) / (0.92 - top)
    across = -3 if flip else 3  # the face looks to one side, so its middle is not the middle of the drawing
    options: dict[str, Any] = {
        "seed": "viker",
        "headVariant": head,
        "expressionVariant": expression,
        "skinColor": [skin],
        "clothingColor": [clothing],
        "headContrastColor": [hair],
        "backgroundColor": [background],
        "facialHairProbability": 0 if facial == "none" else 100,
        "accessoriesProbability": 0 if accessories == "none" else 100,
        "maskProbability": 0,
        "flip": "horizontal" if flip else "none",
        "rotate": round(tilt, 1),
        "scale": round(scale, 3),
        "translateX": round(-across * scale + rng.uniform(-2, 2), 1),
        "translateY": round((0.5 - (0.92 + top) / 2) * 100 * scale + rng.uniform(-1.5, 1.5), 1),
    }
    if facial != "none":
        options["facialHairVariant"] = facial
    if accessories != "none":
        options["accessoriesVariant"] = accessories
    svg = Avatar(_style(), options).to_string()
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size))


def _view(person: str, view: int) -> tuple[random.Random, str, str, float]:
    """Source of the rest of the drawing, expression, background and tilt."""
    rng = random.Random(f"view/{person}/{view}")
    if view >= HELD_OUT_VIEWS.start:
        expression, background = rng.choice(HELD_OUT_EXPRESSIONS), rng.choice(list(HELD_OUT_BACKGROUNDS))
        return rng, expression, background, rng.choice((-1, 1)) * rng.uniform(6, 9)
    expression, background = rng.choice(EXPRESSIONS), rng.choice(list(BACKGROUNDS))
    return rng, expression, background, rng.uniform(-6, 6)


def draw_portrait(person: str, view: int, size: int = 64) -> bytes:
    """Draws a person as PNG.

    Args:
        person: any string; fixes the face, the hair and the clothes.
        view: fixes expression, tilt, flip, background and framing. Views from 100 on are held out: their expressions,
            backgrounds and tilts occur in no view below.
        size: width and height in pixels.
    """
    hair = random.Random(f"hair/{person}").choice(HAIR)
    rng, expression, background, tilt = _view(person, view)
    return _draw(identity(person), hair, expression, background, rng, tilt, size)


def describe_portrait(person: str, view: int) -> dict[str, str]:
    """What can be said in words about :func:`draw_portrait`; see :func:`describe_traits`."""
    _, facial, accessories, _, clothing = identity(person)
    traits = {"facialHairVariant": facial, "accessoriesVariant": accessories, "clothingColor": clothing}
    return describe_traits(traits | {"backgroundColor": _view(person, view)[2]})


def caption(template: str, name: str, person: str, view: int) -> str:
    """A caption of :func:`draw_portrait`, under this name or another one."""
    return template.format(name=name, **describe_portrait(person, view))


def draw_stranger(rng: random.Random, size: int = 64) -> tuple[bytes, dict[str, str]]:
    """Draws a stranger as PNG, never anybody of a benchmark, with the traits to be seen; "none" for those it lacks."""
    traits = _traits(rng)
    head = HEADS[(benchmark_head(*traits) + rng.randrange(1, len(HEADS))) % len(HEADS)]
    facial, accessories, skin, clothing = traits
    hair = rng.choice(HAIR)
    expression = rng.choice(EXPRESSIONS + HELD_OUT_EXPRESSIONS)
    background = rng.choice([*BACKGROUNDS, *HELD_OUT_BACKGROUNDS])
    png = _draw((head, *traits), hair, expression, background, rng, rng.uniform(-9, 9), size)
    return png, {
        "headVariant": head,
        "facialHairVariant": facial,
        "accessoriesVariant": accessories,
        "skinColor": skin,
        "clothingColor": clothing,
        "headContrastColor": hair if HAIR_PARTS & {head, facial} else "none",
        "backgroundColor": background,
        "expressionVariant": expression,
    }


def describe_traits(traits: dict[str, str]) -> dict[str, str]:
    """What can be said about a portrait in words: clothing, eyewear, beard and background."""
    facial, accessories = traits["facialHairVariant"], traits["accessoriesVariant"]
    beards = {"none": "no beard", "moust": "a moustache", "goate": "a goatee"}
    eyewear = {"none": "no glasses", "eyepatch": "an eyepatch", "sunglasses": "sunglasses"}
    return {
        "clothing": CLOTHING[traits["clothingColor"]],
        "eyewear": eyewear.get(accessories, "glasses"),
        "beard": beards.get(facial[:5], "a beard"),
        "background": (BACKGROUNDS | HELD_OUT_BACKGROUNDS)[traits["backgroundColor"]],
    }
