"""Features of frozen vision modules: kept in memory or on disk, the same everywhere."""

import pytest
import torch
from safetensors.torch import save_file

from viker_lightning.models import vision
from viker_lightning.models.vision import FrozenFeatures


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


def test_damaged_features_are_computed_again(tmp_path, caplog):
    calls = []
    kept = FrozenFeatures("disk", tmp_path)
    kept.get([Shown("11"), Shown("22"), Shown("33")], compute(calls))
    flipped, cut, left = (
        tmp_path / "11/11.safetensors",
        tmp_path / "22/22.safetensors",
        tmp_path / "33/.33-0123456789ab.tmp",
    )
    content = bytearray(flipped.read_bytes())
    content[-2] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:50])
    left.mkdir()
    for _ in range(2):
        found = FrozenFeatures("disk", tmp_path).get([Shown("11"), Shown("22"), Shown("33")], compute(calls))
        assert [f.tolist() for f in found] == [[[float(key)] * 3] * 2 for key in ("11", "22", "33")]
    assert calls[1:] == [["11", "22"]] and not left.exists()
    assert [f"{name} is damaged" in said for name, said in zip((flipped, cut), caplog.messages, strict=True)] == [
        True
    ] * 2


def test_features_without_a_checksum_are_computed_again(tmp_path):
    """Nothing tells whether they are whole."""
    calls = []
    (tmp_path / "11").mkdir()
    save_file({"features": torch.zeros(2, 3)}, tmp_path / "11/11.safetensors")
    for _ in range(2):
        found = FrozenFeatures("disk", tmp_path).get([Shown("11")], compute(calls))
        assert found[0].tolist() == [[11.0] * 3] * 2
    assert calls == [["11"]]


def test_off_keeps_nothing(tmp_path):
    calls = []
    kept = FrozenFeatures("off", tmp_path)
    for _ in range(2):
        kept.get([Shown("1"), Shown("1")], compute(calls))
    assert calls == [["1"], ["1"]] and not list(tmp_path.iterdir())


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(vision, "MEMORY_LIMIT", 2 * 24)  # two pictures of 2 x 3 floats
    calls = []
    kept = FrozenFeatures()
    for key in ("1", "2", "1", "3", "1", "2"):
        kept.get([Shown(key)], compute(calls))
    assert calls == [["1"], ["2"], ["3"], ["2"]]
