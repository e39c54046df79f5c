"""Features of frozen vision modules: kept in memory or on disk, the same everywhere."""

import pytest
import torch

from viker_lightning.models import features as module
from viker_lightning.models.features import FrozenFeatures


class Shown:
    def __init__(self, key):
        self.key = key


def compute(calls):
    def run(pictures):
        calls.append([p.key for p in pictures])
        return [torch.full((2, 3), float(p.key)) for p in pictures]

    return run


@pytest.mark.parametrize("keep", ["memory", "disk"])
def test_every_picture_once(keep, tmp_path):
    calls = []
    kept = FrozenFeatures(keep, tmp_path)
    found = kept.get([Shown("11"), Shown("22"), Shown("11")], compute(calls))
    assert [int(f[0, 0]) for f in found] == [11, 22, 11]
    found = kept.get([Shown("33"), Shown("22")], compute(calls))
    assert [int(f[0, 0]) for f in found] == [33, 22]
    assert calls == [["11", "22"], ["33"]]
    if keep == "disk":
        again = FrozenFeatures(keep, tmp_path).get([Shown("33")], compute(calls))
        assert again[0].tolist() == [[33.0] * 3] * 2 and len(calls) == 2


def test_off_keeps_nothing(tmp_path):
    calls = []
    kept = FrozenFeatures("off", tmp_path)
    for _ in range(2):
        kept.get([Shown("1"), Shown("1")], compute(calls))
    assert calls == [["1"], ["1"]] and not list(tmp_path.iterdir())


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MEMORY_LIMIT", 2 * 24)  # two pictures of 2 x 3 floats
    calls = []
    kept = FrozenFeatures()
    for key in ("1", "2", "1", "3", "1", "2"):
        kept.get([Shown(key)], compute(calls))
    assert calls == [["1"], ["2"], ["3"], ["2"]]
