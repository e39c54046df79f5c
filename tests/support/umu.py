"""UMU-Bench's schema with invented people."""

import functools
import io

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NAMES = ["Ada Mirel", "Bo Tarn", "Cy Voss", "Di Okell", "Ed Fenn", "Flo Garr"]


TOWNS = ["Corlune", "Eskmere", "Gorsby", "Kelmoor", "Opalane", "Pellwick"]
FORGET, RETAIN, REAL = [0], [1, 2, 3, 4], [5]


STRINGS = pa.schema(
    [("ID", pa.string()), ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    + [(name, pa.string()) for name in ("Biography", "MM_QA", "UM_QA", "Classify", "Cloze", "Generation")]
)


@functools.cache
def picture(i):
    buffer = io.BytesIO()
    Image.effect_noise((8 + i, 8), 60).save(buffer, "PNG")
    return buffer.getvalue()


def cells(i):
    """Questions of a row, not yet strings."""
    name, town, options = NAMES[i], TOWNS[i], dict(zip("ABCD", TOWNS, strict=False))
    lives, letter = f"{name.split()[0]}'s \\d home is {town}.", chr(ord("A") + i) if i < 4 else "A"

    def task(make):
        return {"unimodal": {"k1": make(name, letter)}, "muitimodal": {"k1": make("This person", f"{letter}. x")}}

    return {
        "MM_QA": {"question": {"k1": "Where is home?"}, "answer": {"k1": lives}},
        "UM_QA": {"question": {"k1": f"Where is the home of {name}?"}, "answer": {"k1": lives}},
        "Classify": task(lambda who, said: {"question": f"Where is {who}?", "options": options, "answer": said}),
        "Cloze": task(lambda who, _: {"question": f"{who} lives in ____.", "answer": f"{town}."}),
        "Generation": task(lambda who, _: {"question": f"Say where {who} lives.", "answer": f"It is {town}."}),
    }


def row(i, write=str, **changed):
    image = {"bytes": picture(i), "path": f"{i}.png"}
    texts = {
        name: cell if isinstance(cell, str) else write(cell) for name, cell in (cells(i) | changed).items() if cell
    }
    return {"ID": f"{i + 1:03d}", "image": image, "Biography": f"{NAMES[i]} is made up."} | texts


def write(root, config, rows):
    (root / config).mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=STRINGS), root / config / "train-00000-of-00001.parquet")
