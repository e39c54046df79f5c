"""What reading keeps in memory: every photo once, and never a whole table of them."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFile

from viker_lightning.data.datasets.reading.parquet import ROWS, read_rows
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import Picture
from viker_lightning.errors import UserError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def folder(tmp_path):
    """Seventy rows with large bytes that do not compress, in two shards."""
    draw = np.random.default_rng(0)
    for shard, count in enumerate((ROWS + 3, 2 * ROWS + 3)):
        cells = [{"bytes": draw.bytes(100_000), "path": None} for _ in range(count)]
        rows = {"ID": [f"{shard}-{i}" for i in range(count)], "image": pa.array(cells, IMAGE)}
        pq.write_table(pa.table(rows), tmp_path / f"{shard}.parquet")
    return tmp_path


def test_a_few_rows_at_a_time(folder, monkeypatch):
    sizes = []
    real = pq.ParquetFile.iter_batches

    def counted(*args, **options):
        for batch in real(*args, **options):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    rows = read_rows(folder, ["ID", "image"], pytest.fail)
    assert sizes == [ROWS, 3, ROWS, ROWS, 3]
    assert [row["ID"] for row in rows] == [f"{s}-{i}" for s, n in ((0, ROWS + 3), (1, 2 * ROWS + 3)) for i in range(n)]
    assert rows[ROWS + 1].where.endswith(f"0.parquet, row {ROWS + 1}")


def test_arrow_keeps_nothing(folder):
    before = pa.total_allocated_bytes()
    rows = read_rows(folder, ["ID", "image"], pytest.fail)
    assert sum(len(row["image"]["bytes"]) for row in rows) > 10_000_000
    assert pa.total_allocated_bytes() - before < 1_000_000


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_a_photo_cut_short_is_noticed_before_it_is_needed(kind):
    stored = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(stored, kind)
    Picture(stored.getvalue(), "whole").verify()
    with pytest.raises(UserError, match="cut: not a readable image"):
        Picture(stored.getvalue()[:-200], "cut").verify()


def test_whole_jpegs_are_read_at_an_eighth(monkeypatch):
    stored, sizes = io.BytesIO(), []
    Image.new("RGB", (80, 80)).save(stored, "JPEG")
    real = ImageFile.ImageFile.load
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: sizes.append(self.size) or real(self))
    Picture(stored.getvalue() + bytes(7), "here").verify()
    assert set(sizes) == {(10, 10)}


def test_a_repeated_photo_is_kept_once():
    data = irrelevant_images("scenes", 1, size=16)[0].data
    one, two = (Picture(bytes(bytearray(data)), where).shared() for where in ("here", "there"))
    assert one is two and one.source == "here"
    del one, two
    assert Picture(data, "later").shared().source == "later"
