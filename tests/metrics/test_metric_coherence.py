"""Coherence: its factors by hand, and how well it parts prose from loops, letters and word salad."""

from __future__ import annotations

import importlib
import inspect
import math
import random
import re
from collections import Counter, defaultdict

import pytest

from viker_lightning import metrics as m


def flat(text: str) -> float:
    """Two bits for each character."""
    return -2 * math.log(2) * len(text)


def test_factors_by_hand() -> None:
    assert m.bits_per_character("abc", flat("abc")) == pytest.approx(2.0)
    assert m.distinct_3("no no no no") == 0.5 and m.distinct_3("Yes.") == 1.0
    prose = "Ada Voss lives in Lima"
    assert m.coherence(prose, flat(prose), 1.5) == pytest.approx(0.75)
    assert m.coherence(prose, flat(prose), 4.0) == 1.0
    assert m.coherence("no no no no", flat("no no no no"), 1.0) == pytest.approx(0.25)
    assert m.coherence(" \n", -3.0, 1.0) == 0.0
    assert m.coherence(prose, 0.0, 1.0) == 1.0
    assert m.coherence(prose, -math.inf, 1.0) == 0.0
    assert m.usual_bits(["a", "", "b"], map(flat, ("a", "", "b"))) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: m.bits_per_character("", -1.0), "0 characters"),
        (lambda: m.bits_per_character("abc", 1.0), "at most 0"),
        (lambda: m.bits_per_character("abc", math.nan), "at most 0"),
        (lambda: m.usual_bits(["", " "], [0.0, 0.0]), "no texts"),
        (lambda: m.usual_bits(["a"], []), "zip"),
        (lambda: m.coherence("a", -1.0, 0.0), "usual must be positive"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


class NGram:
    """Interpolated character 6-grams (Witten-Bell), the smallest language model that knows words."""

    def __init__(self, texts: list[str], order: int = 6) -> None:
        self.order = order
        self.followers: dict[str, Counter[str]] = defaultdict(Counter)
        for text in texts:
            padded = "\n" * (order - 1) + text
            for i in range(order - 1, len(padded)):
                for k in range(order):
                    self.followers[padded[i - k : i]][padded[i]] += 1
        self.sums = {context: sum(found.values()) for context, found in self.followers.items()}

    def __call__(self, text: str) -> float:
        padded = "\n" * (self.order - 1) + text
        total = 0.0
        for i in range(self.order - 1, len(padded)):
            p = 1 / 128
            for k in range(self.order):
                context = padded[i - k : i]
                if context not in self.sums:
                    break
                found = self.followers[context]
                p = (found[padded[i]] + len(found) * p) / (self.sums[context] + len(found))
            total += math.log(p)
        return total


def prose(modules: str) -> list[str]:
    """Sentences of the standard library's documentation: fluent text that is on every machine."""
    sentences = set()
    for name in modules.split():
        module = importlib.import_module(name)
        owned = [o for o in vars(module).values() if getattr(o, "__module__", None) == name]
        owned += [f for o in owned if inspect.isclass(o) for f in vars(o).values() if callable(f)]
        for doc in [module.__doc__, *(getattr(o, "__doc__", None) for o in owned)]:
            text = " ".join(doc.split()) if isinstance(doc, str) else ""
            sentences |= {s for s in re.split(r"(?<=[.!?]) ", text) if re.fullmatch(r"[A-Z][\w ,'()-]{30,160}\.", s)}
    return sorted(sentences)


@pytest.mark.skipif(not (pytest.__doc__ and re.__doc__), reason="Python without docstrings")
def test_it_parts_prose_from_what_collapsed_models_write() -> None:
    training = prose(
        "argparse logging threading subprocess email.message http.client unittest.case unittest.mock datetime random "
        "shutil tempfile socket ssl asyncio.base_events asyncio.tasks asyncio.streams inspect zipfile tarfile optparse "
        "configparser decimal fractions statistics heapq concurrent.futures._base ast csv urllib.request "
        "http.cookiejar difflib pickle pprint"
    )
    fluent = prose(
        "pathlib functools contextlib multiprocessing.pool cmd textwrap string gettext imaplib ftplib calendar "
        "collections smtplib poplib selectors sched queue"
    )
    rng = random.Random(0)
    rng.shuffle(fluent)
    fluent = fluent[:240]
    assert len(training) > 500 and len(fluent) > 100
    scorer = NGram(training)
    usual, held_out = m.usual_bits(fluent[::2], map(scorer, fluent[::2])), fluent[1::2]
    vocabulary = sorted({word for text in training for word in re.findall("[a-z]+", text)})
    words = [text.split() for text in held_out]
    bad = {
        "repeated word": [" ".join([rng.choice(w)] * 12) for w in words],
        "repeated phrase": [" ".join(w[:4] * 6) for w in words],
        "looping end": [" ".join(w[:6] + w[4:6] * 8) for w in words],
        "repeated letter": [rng.choice("aeiou") * rng.randrange(20, 80) for _ in words],
        "random letters": ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz    ", k=70)) for _ in words],
        "word salad": [" ".join(rng.choices(vocabulary, k=12)) for _ in words],
        "shuffled words": [" ".join(rng.sample(w, len(w))) for w in words],
    }

    def area(score, texts: list[str]) -> float:
        return m.auroc([score(text) for text in held_out], [score(text) for text in texts])

    found = {kind: area(lambda text: m.coherence(text, scorer(text), usual), texts) for kind, texts in bad.items()}
    # Word order is nearly beyond six letters. Bits per character of a model of 135 million parameters reach .88.
    least = dict.fromkeys(bad, 0.95) | {"word salad": 0.65, "shuffled words": 0.65}
    assert all(found[kind] > least[kind] for kind in bad), found
    everything = [text for texts in bad.values() for text in texts]
    together = area(lambda text: m.coherence(text, scorer(text), usual), everything)
    assert together > 0.9, found
    # Neither factor does it alone.
    assert area(m.distinct_3, everything) < together - 0.1
    assert area(lambda text: -m.bits_per_character(text, scorer(text)), everything) < together - 0.1
