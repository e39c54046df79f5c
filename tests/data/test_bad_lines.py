"""The same of one's own people: every bad line of a JSONL or CSV file is named, or skipped and listed."""

import json
import re
import sys
from pathlib import Path

import pytest

from viker_lightning.data import Jsonl
from viker_lightning.data.irrelevant import irrelevant_images

sys.path.insert(0, str(Path(__file__).parent))
from reading import module, one_line

GOOD = [
    {"image": "a.png", "question": "Who?", "answer": "It is Ann.", "person": "Ann", "split": "forget"},
    {"image": "b.png", "question": "Who?", "answer": "It is Bob.", "person": "Bob", "split": "retain"},
]
JSONL_ROWS = [
    ({"image": "/etc/passwd"}, "column 'image': '/etc/passwd' leads out of"),
    ({"image": "../a.png"}, "column 'image': '../a.png' leads out of"),
    ({"image": "x/../../a.png"}, "leads out of"),
    ({"image": "C:\\a.png"}, "leads out of"),
    ({"image": "..\\a.png"}, "leads out of"),
    ({"image": "missing.png"}, r"column 'image': '.*missing.png' cannot be read \(No such file"),
    ({"image": "a\0.png"}, "cannot be read"),
    ({"image": "people.jsonl"}, "column 'image': .*not a readable image"),
    ({"image": 3}, "column 'image': found 3, expected text"),
    ({"question": ""}, "column 'question': found '', expected text"),
    ({"answer": None}, "column 'answer': found None, expected text"),
    ({"answer": ["x"]}, r"column 'answer': found \['x'\], expected text"),
    ({"person": 7}, "column 'person': found 7, expected text"),
    ({"person": "Bob"}, "'Bob' is retain here, but forget in"),
    ({"split": "train"}, "column 'split': found 'train'; write one of forget, test, retain, real, general"),
    ({"split": "test", "person": "Cy"}, "'Cy' is tested, but not forgotten"),
    ({"private": ["Ben"]}, "column 'private': 'Ben' does not occur in the answer"),
    ({"private": ["Ann", ""]}, r"column 'private\[1\]': found ''"),
    ({"private": {"a": 1}}, "column 'private': found .*, expected a list of texts"),
    ({"options": ["Ann", "Bob"]}, "the right one, 'It is Ann.', is not among"),
    ({"options": ["Ann", "Bob"], "correct": "Cy"}, "the right one, 'Cy', is not among"),
    ({"options": ["Ann"], "correct": "Ann"}, "give at least two"),
    ({"options": ["Ann", "Ann"], "correct": "Ann"}, "give at least two, each once"),
    ({"correct": "Ann"}, "column 'options': empty"),
    ({"paraphrase": 1}, "column 'paraphrase': found 1"),
    ({"answer": "\ud800"}, "column 'answer': not UTF-8 text"),
]


@pytest.fixture
def people(tmp_path):
    for name, image in zip("ab", irrelevant_images("people", 2, size=16), strict=True):
        (tmp_path / f"{name}.png").write_bytes(image.data)
    return tmp_path / "people.jsonl"


def write(file, *lines):
    encoded = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    file.write_bytes(b"\n".join(encoded) + b"\n")


@pytest.mark.parametrize(("cells", "expected"), JSONL_ROWS)
def test_jsonl(people, cells, expected):
    bad = {"image": None, "question": "Why?", "answer": "It is Ann.", "person": "Ann", "split": "forget"} | cells
    if cells.get("person") == "Bob":
        bad |= {"person": "Ann", "split": "retain"}
        expected = "'Ann' is retain here, but forget in"
    write(people, *GOOD, bad)
    said = one_line(Jsonl, people)
    assert said.startswith(f"{people}, line 3, column "), said
    assert re.search(expected, said), said
    data = module(Jsonl, people, on_bad_row="skip")
    assert data.skipped == [said] and (data.forget_ids, data.retain_ids) == (["Ann"], ["Bob"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (json.dumps(GOOD[0]).encode()[:-1] + b', "answer": "x"}', "the field 'answer' occurs twice"),
        (b"[1]", r"found \[1\], expected an object"),
        (b'{"image": "a.png", "question": "x", "answer": "y"}', "field 'person' is missing; found image, question"),
        (json.dumps(GOOD[0]).encode().replace(b"Who", b"\xff"), "not UTF-8 text"),
        (json.dumps(GOOD[0]).encode(), "the same question about the same image as in .*line 1; keep one"),
    ],
    ids=["json", "deep", "name", "list", "field", "utf8", "twice"],
)
def test_json_lines(people, line, expected, caplog):
    write(people, *GOOD, b"", line)
    said = one_line(Jsonl, people)
    assert said.startswith(f"{people}, line 4") and re.search(expected, said), said
    assert module(Jsonl, people, on_bad_row="skip").skipped == [said] and "1 bad rows skipped" in caplog.text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"a.png,Who?,Ann", "line 3: found 3 cells, expected 5; quote cells"),
        (b"a.png,Where?,\xff,Ann,forget", "line 3, column 'answer': not UTF-8 text"),
        (b"a.png,Where?,,Ann,forget", "line 3, column 'answer': found None, expected text"),
    ],
)
def test_csv(people, line, expected):
    people = people.with_suffix(".csv")
    people.write_bytes(b"image,question,answer,person,split\na.png,Who?,Ann,Ann,forget\n" + line + b"\n")
    said = one_line(Jsonl, people)
    assert said.startswith(str(people)) and expected in said
    assert module(Jsonl, people, on_bad_row="skip").skipped == [said]


def test_csv_file(people):
    people = people.with_suffix(".csv")
    people.write_text("image,question,anwser,person\na.png,Who?,Ann,Ann\n")
    assert "column 'answer' is missing; found image, question, anwser, person" in one_line(Jsonl, people)
    people.write_text('image,question,answer,person\na.png,"Who" is,Ann,Ann\n')
    assert f"{people}, line 2: not CSV" in one_line(Jsonl, people, on_bad_row="skip")
    people.write_text(f"image,question,answer,person\na.png,Who?,{'x' * 200_000},Ann\n")
    assert re.search(r"line 2: not CSV \(field larger .*; close a quote .*, or shorten", one_line(Jsonl, people))
    people.write_text("")
    assert "column 'image' is missing; found none" in one_line(Jsonl, people)
    people.write_text("image,question,answer,person,answer\na.png,Who?,Ann,Ann,Bob\n")
    assert "column 'answer' occurs twice" in one_line(Jsonl, people)
    people.write_text("image,question,answer,person\na.png,Who?,Ann,Ann\n", "utf-16")
    assert f"{people}, line 1: not UTF-8 text" in one_line(Jsonl, people)
    people.write_text("image,question,answer,person\n")
    assert "holds no readable row" in one_line(Jsonl, people)
