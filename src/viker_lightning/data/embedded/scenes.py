"""Drawn landscapes and animals, with what is to be seen in them."""

import random

import resvg_py

COLOURS = {
    "red": "#d62f2f",
    "blue": "#2f5fd6",
    "green": "#2fa84a",
    "yellow": "#f2c81f",
    "purple": "#8a3fc0",
    "white": "#f7f7f7",
    "orange": "#f08a24",
}
TIMES = {"morning": "#ffd9a8", "noon": "#8fd0ff", "evening": "#e8744f", "night": "#1c2450"}
WEATHER = ("clear", "cloudy", "rainy", "snowy")
PLACES = ("beach", "forest", "city", "mountain", "field", "desert")
OBJECTS = ("boat", "house", "car", "tent", "balloon", "flag")
COUNTS = ("one", "two", "three", "four")
FURS = {"black": "#2b2b2b", "white": "#fafafa", "brown": "#8a5a33", "orange": "#f0953a", "grey": "#9a9aa2"}
PETS = ("cat", "dog", "rabbit", "bird", "fish", "turtle")
ROOMS = {"blue": "#a9d3f5", "green": "#b6e3b0", "pink": "#f8c3d3", "yellow": "#fbeb9c", "purple": "#cdbdf0"}
_INK = 'stroke="#222" stroke-width="1.2" stroke-linejoin="round"'


def _png(body: str, size: int) -> bytes:
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">{body}</svg>'
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size))


def _rect(x: float, y: float, w: float, h: float, fill: str, more: str = "") -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="{fill}" {more}/>'


def _oval(x: float, y: float, rx: float, ry: float, fill: str, more: str = "") -> str:
    return f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{rx:.1f}" ry="{ry:.1f}" fill="{fill}" {more}/>'


def _path(d: str, fill: str, more: str = "") -> str:
    return f'<path d="{d}" fill="{fill}" {more}/>'


def _place(place: str, rng: random.Random) -> str:
    """The ground below y = 36 and what stands on the horizon."""
    if place == "beach":
        return _rect(0, 34, 64, 14, "#2f8fc4") + _path("M0 48 Q16 43 32 47 T64 45 V64 H0 Z", "#f0d9a0")
    if place == "forest":
        trees = "".join(
            _rect(x - 1, 34, 2, 6, "#5a3b1e") + _path(f"M{x - 6} 37 L{x} {y} L{x + 6} 37 Z", "#1f6b35")
            for x, y in ((x, rng.randint(13, 20)) for x in range(2, 64, 9))
        )
        return _rect(0, 36, 64, 28, "#4f8f45") + trees
    if place == "city":
        towers = ""
        for x in range(0, 64, 11):
            top = rng.randint(8, 22)
            lights = "".join(_rect(x + dx, y, 2, 2, "#ffe58a") for dx in (2, 6) for y in range(top + 3, 34, 5))
            towers += _rect(x, top, 10, 40 - top, rng.choice(("#59606e", "#6f7787", "#4a505c"))) + lights
        return (
            towers
            + _rect(0, 38, 64, 26, "#8b8b90")
            + _path("M0 51 H64", "none", 'stroke="#fff" stroke-dasharray="5 4"')
        )
    if place == "mountain":
        peaks = ""
        for x, top in ((14, rng.randint(12, 17)), (46, rng.randint(8, 13)), (31, rng.randint(18, 22))):
            peaks += _path(f"M{x - 22} 40 L{x} {top} L{x + 22} 40 Z", "#7a746e")
            peaks += _path(f"M{x - 6} {top + 7} L{x} {top} L{x + 6} {top + 7} L{x} {top + 5} Z", "#ffffff")
        return peaks + _rect(0, 38, 64, 26, "#9aa86b")
    if place == "field":
        rows = "".join(
            _path(f"M32 36 L{x} 64", "none", 'stroke="#b8912a" stroke-width="1.5"') for x in range(-60, 130, 14)
        )
        return _rect(0, 36, 64, 28, "#e3c04a") + rows
    cactus = _path("M54 36 V22 M54 32 H49 V27 M54 29 H59 V25", "none", 'stroke="#2d8040" stroke-width="3"')
    return (
        _path("M0 38 Q14 30 30 37 T64 35 V64 H0 Z", "#dd9a4c")
        + _path("M0 52 Q30 42 64 52 V64 H0 Z", "#c9813a")
        + cactus
    )


def _sky(time: str, weather: str, rng: random.Random) -> tuple[str, str]:
    """What is behind the place, and what falls in front of it."""
    x = rng.randint(10, 54)
    sky = _rect(0, 0, 64, 64, TIMES[time])
    if time == "night":
        stars = "".join(_oval(rng.randint(1, 63), rng.randint(1, 30), 0.6, 0.6, "#fff") for _ in range(12))
        sky += stars + _oval(x, 7, 5, 5, "#f4f0c8") + _oval(x + 2.5, 6, 4, 4, TIMES[time])
    else:
        height = {"morning": 27, "noon": 6, "evening": 30}[time]
        sky += _oval(x, height, 5.5, 5.5, {"morning": "#ffef9e", "noon": "#ffd92e", "evening": "#b3202a"}[time])
    front = ""
    if weather != "clear":
        grey = "#8d96a3" if weather == "rainy" else "#eef1f5"
        for cloud in (rng.randint(6, 18), rng.randint(28, 38), rng.randint(48, 58)):
            y = rng.randint(3, 9)
            front += _oval(cloud, y, 9, 3.6, grey) + _oval(cloud - 3, y - 2, 4.5, 3.6, grey)
    for drop in range(48 if weather in ("rainy", "snowy") else 0):
        x0, y0 = (drop % 8) * 8 + rng.randint(0, 6), (drop // 8) * 9 + 12 + rng.randint(0, 6)
        if weather == "rainy":
            front += _path(f"M{x0} {y0} l-1.6 4.5", "none", 'stroke="#3d6fd0" stroke-width="1"')
        else:
            front += _oval(x0, y0, 1.2, 1.2, "#fff", 'stroke="#8fa6bf" stroke-width="0.3"')
    return sky, front


def _object(kind: str, fill: str, x: float, scale: float) -> str:
    """An object of about 17 x 17 around (x, 50)."""
    body = {
        "boat": _path("M-9 3 H9 L5 8 H-5 Z", fill, _INK) + _path("M0 3 V-9 L7 1 H0", fill, _INK),
        "house": _rect(-7, -1, 14, 10, fill, _INK)
        + _path("M-9 -1 L0 -9 L9 -1 Z", "#6b3a2a", _INK)
        + _rect(-2, 3, 4, 6, "#3a2a20"),
        "car": _path("M-9 5 V0 L-5 -1 L-3 -5 H4 L6 -1 L9 0 V5 Z", fill, _INK)
        + _oval(-5, 6, 2.4, 2.4, "#222")
        + _oval(5, 6, 2.4, 2.4, "#222")
        + _rect(-2.2, -3.8, 5, 3, "#dff3ff"),
        "tent": _path("M-9 8 L0 -8 L9 8 Z", fill, _INK) + _path("M-3 8 L0 0 L3 8 Z", "#333"),
        "balloon": _oval(0, -5, 6.5, 7.5, fill, _INK)
        + _path("M-4 1 L-2 6 M4 1 L2 6", "none", _INK)
        + _rect(-2.5, 6, 5, 3.5, "#7a4a22"),
        "flag": _rect(-6, -10, 1.6, 19, "#444") + _path("M-4.4 -10 H8 L5 -5.5 L8 -1 H-4.4 Z", fill, _INK),
    }[kind]
    return f'<g transform="translate({x:.1f} 51) scale({scale})">{body}</g>'


def draw_scene(rng: random.Random, size: int = 64) -> tuple[bytes, dict[str, str]]:
    """Draws a landscape as PNG, with its facts: place, time, weather, object, colour (of the objects) and count."""
    facts = {
        "place": rng.choice(PLACES),
        "time": rng.choice(list(TIMES)),
        "weather": rng.choice(WEATHER),
        "object": rng.choice(OBJECTS),
        "colour": rng.choice(list(COLOURS)),
        "count": rng.choice(COUNTS),
    }
    sky, front = _sky(facts["time"], facts["weather"], rng)
    shade = _rect(0, 0, 64, 64, "#0a1040", 'opacity="0.35"') if facts["time"] == "night" else ""
    middles = {"one": (32,), "two": (20, 44), "three": (11, 32, 53), "four": (8, 24, 40, 56)}[facts["count"]]
    shift = rng.uniform(-2, 2)
    objects = "".join(
        _object(facts["object"], COLOURS[facts["colour"]], x + shift, 0.8 if len(middles) == 4 else 1) for x in middles
    )
    return _png(sky + _place(facts["place"], rng) + shade + objects + front, size), facts


def _eyes(x: float, y: float, apart: float) -> str:
    white = "".join(_oval(x + side * apart, y, 2.6, 2.8, "#fff", _INK) for side in (-1, 1))
    return white + "".join(_oval(x + side * apart, y, 1.2, 1.5, "#111") for side in (-1, 1))


def _animal(kind: str, fur: str) -> str:
    """An animal of about 48 x 56 in the middle of the picture."""
    if kind == "cat":
        ears = _path("M17 26 L17 8 L30 17 Z M47 26 L47 8 L34 17 Z", fur, _INK)
        whiskers = _path(
            "M8 32 L20 34 M8 39 L20 37 M56 32 L44 34 M56 39 L44 37", "none", 'stroke="#666" stroke-width="1"'
        )
        body = _oval(32, 60, 17, 16, fur, _INK) + ears + _oval(32, 30, 17, 15, fur, _INK)
        return body + _eyes(32, 27, 7) + whiskers + _path("M30 34 H34 L32 37 Z", "#e8788c")
    if kind == "dog":
        ears = _path("M16 14 Q4 20 10 42 Q19 42 20 26 Z M48 14 Q60 20 54 42 Q45 42 44 26 Z", "#4b3020", _INK)
        body = _oval(32, 62, 18, 16, fur, _INK) + _oval(32, 29, 17, 19, fur, _INK) + ears
        snout = _oval(32, 38, 8, 7, "#f3e3cf", _INK) + _oval(32, 34, 3.6, 2.6, "#111")
        return body + _eyes(32, 23, 6) + snout + _path("M30 43 H34 V49 Q32 51 30 49 Z", "#e8788c")
    if kind == "rabbit":
        ears = "".join(_oval(x, 14, 4.6, 14, fur, _INK) + _oval(x, 15, 2, 10, "#f5a8b8") for x in (25, 39))
        body = ears + _oval(32, 62, 15, 15, fur, _INK) + _oval(32, 36, 14, 13, fur, _INK)
        return body + _eyes(32, 33, 6) + _oval(32, 39, 2, 1.5, "#e8788c") + _rect(30, 42, 4, 5, "#fff", _INK)
    if kind == "bird":
        body = (
            _path("M8 44 L2 34 L20 38 Z", fur, _INK)
            + _oval(29, 40, 18, 13, fur, _INK)
            + _oval(44, 25, 11, 10.5, fur, _INK)
        )
        beak = _path("M53 22 L63 26 L53 29 Z", "#f5b21f", _INK)
        legs = _path("M25 52 V61 M34 52 V61", "none", 'stroke="#d98a12" stroke-width="2"')
        return legs + body + beak + _oval(46, 23, 2.6, 2.6, "#fff", _INK) + _oval(46.6, 23, 1.2, 1.2, "#111")
    if kind == "fish":
        body = _path("M20 32 L3 19 V45 Z M28 20 Q38 8 42 19 Z", fur, _INK) + _oval(37, 32, 21, 14, fur, _INK)
        fins = _path("M31 33 Q40 40 30 42 Z M46 22 Q42 32 46 42", "none", _INK) + _path(
            "M52 36 Q56 37 57 34", "none", _INK
        )
        return body + fins + _oval(50, 28, 3, 3, "#fff", _INK) + _oval(50.6, 28, 1.4, 1.4, "#111")
    limbs = "".join(_oval(x, 49, 5, 6, "#6fae58", _INK) for x in (18, 42)) + _oval(55, 37, 8, 7, "#6fae58", _INK)
    shell = _path("M7 48 Q8 16 30 16 Q52 16 53 48 Z", fur, _INK)
    return (
        limbs + shell + _path("M19 46 L24 24 M41 46 L36 24 M9 37 H51", "none", _INK) + _oval(58, 35, 1.4, 1.6, "#111")
    )


def draw_pet(rng: random.Random, size: int = 64) -> tuple[bytes, dict[str, str]]:
    """Draws an animal as PNG, with its facts: animal, colour (of its coat) and background."""
    facts = {"animal": rng.choice(PETS), "colour": rng.choice(list(FURS)), "background": rng.choice(list(ROOMS))}
    flip = "translate(64 0) scale(-1 1)" if rng.random() < 0.5 else ""
    place = f"translate({rng.uniform(-2, 2):.1f} {rng.uniform(-1, 2):.1f}) rotate({rng.uniform(-5, 5):.1f} 32 32)"
    animal = f'<g transform="{place} {flip}">{_animal(facts["animal"], FURS[facts["colour"]])}</g>'
    return _png(_rect(0, 0, 64, 64, ROOMS[facts["background"]]) + animal, size), facts
