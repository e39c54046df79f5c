"""The same of one's own people: every bad line of a JSONL or CSV file is named, or skipped and listed."""

import json
import os
import re
import tracemalloc
from types import SimpleNamespace

import pytest
from lightning.pytorch.trainer.states import TrainerFn

from support.reading import module, one_line
from viker_lightning.data.datasets import Jsonl
from viker_lightning.data.pictures.irrelevant import irrelevant_images

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
    ({"split": "train"}, "column 'split': found 'train'; write one of forget, test, retain, kept, real, general"),
    ({"split": "test", "person": "Cy"}, "'Cy' is tested, but not forgotten"),
    ({"private": ["Ben"]}, "column 'private': 'Ben' does not occur in the answer .*; copy whole words from"),
    ({"private": ["Ann", ""]}, r"column 'private\[1\]': found ''"),
    ({"private": {"a": 1}}, "column 'private': found .*, expected a list of texts"),
    ({"options": ["Ann", "Bob"]}, "the right one, 'It is Ann.', is not among"),
    ({"options": ["Ann", "Bob"], "correct": "Cy"}, "the right one, 'Cy', is not among"),
    ({"options": ["Ann"], "correct": "Ann"}, "give at least two"),
    ({"options": ["Ann", "Ann"], "correct": "Ann"}, "give at least two, each once"),
    ({"correct": "Ann"}, "column 'options': empty"),
    ({"paraphrase": 1}, "column 'paraphrase': found 1"),
    ({"answer": "\ud800"}, r"column 'answer': not UTF-8 text \('\\ud800' is half a character\)"),
    ({"note": ["\udfff"]}, "column 'note': not UTF-8 text"),
    ({"question": "\u200b\ufeff \u2060"}, r"column 'question': found '\\u200b\\ufeff \\u2060', expected text"),
    ({"image": "pipe.png"}, r"pipe.png' cannot be read \(a pipe or a device, not a file\)"),
]


@pytest.fixture
def people(tmp_path):
    for name, image in zip("ab", irrelevant_images("people", 2, size=16), strict=True):
        (tmp_path / f"{name}.png").write_bytes(image.data)
    os.mkfifo(tmp_path / "pipe.png")
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
        (json.dumps(GOOD[0]).encode()[:-1] + b', "note": 1e999}', "the number '1e999' is too large"),
        (b"[1]", r"found \[1\], expected an object"),
        (b'{"image": "a.png", "question": "x", "answer": "y"}', "field 'person' is missing; found image, question"),
        (json.dumps(GOOD[0]).encode().replace(b"Who", b"\xff"), "not UTF-8 text"),
        (json.dumps(GOOD[0]).encode(), "the same question about the same image as in .*line 1; keep one"),
        (
            json.dumps(GOOD[0] | {"answer": "It is Amy."}).encode(),
            "same image as in .*line 1, with another answer, 'It is Amy.' for 'It is Ann.'; keep one",
        ),
        (b"{}\0\0\0", "not UTF-8 text, but NUL bytes: UTF-16 without a byte order mark, or a damaged"),
        (b'{"n": ' + b"1" * 5000 + b"}", "not JSON"),
    ],
    ids=["json", "deep", "name", "number", "list", "field", "utf8", "twice", "another answer", "nul", "digits"],
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
    assert f"{people}: not UTF-8 text, but UTF-16" in one_line(Jsonl, people)
    people.write_text("image,question,answer,person\na.png,Who?,Ann,Ann\n", "utf-16-le")
    assert f"{people}, line 1: not UTF-8 text, but NUL bytes" in one_line(Jsonl, people)
    people.write_text("image,question,answer,person\n")
    assert "holds no readable row" in one_line(Jsonl, people)


def test_a_line_without_end_takes_no_memory(people):
    """Two hundred megabytes in a line took twenty gigabytes; the bound is on what is read, whatever is made of it."""
    write(people, *GOOD)
    with people.open("ab") as file:
        file.write(b'{"image": null, "person": "Ann", "question": "Why?", "answer": "')
        for _ in range(32):
            file.write(b"word " * 200_000)
        file.write(b'"}\n' + json.dumps(GOOD[0] | {"question": "When?"}).encode())
    tracemalloc.start()
    said = one_line(Jsonl, people)
    data = module(Jsonl, people, on_bad_row="skip")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said == f"{people}, line 3: more than 1048576 bytes; a row is one line, so break it or shorten its texts"
    assert data.skipped == [said] and len(data.people(["Ann"])[0].vqa) == 2  # line 4 is read
    assert peak < 10_000_000


def test_utf16(people):
    people.write_text("\n".join(map(json.dumps, GOOD)), "utf-16")
    for mode in ("error", "skip"):
        said = one_line(Jsonl, people, on_bad_row=mode)
        assert said == f"{people}: not UTF-8 text, but UTF-16 or UTF-32; save it in UTF-8"


def test_line_ends_of_all_kinds(people):
    people = people.with_suffix(".csv")
    for end in ("\n", "\r\n", "\r"):
        rows = ["image,question,answer,person,split", 'a.png,"Who\nis it?",Ann,Ann,forget', "b.png,Who?,Bob,Bob,retain"]
        people.write_bytes(b"\xef\xbb\xbf" + end.join(rows).encode() + end.encode())
        data = module(Jsonl, people)
        assert [p.id for p in data.people()] == ["Ann", "Bob"] and data.people()[0].vqa[0].question == "Who\nis it?"


def test_what_the_system_does_not_let_be_read(people, monkeypatch):
    write(people, *GOOD)

    def closed(self):
        raise PermissionError(13, "Permission denied", str(people.parent))

    monkeypatch.setattr(Jsonl, "read_training", closed)
    said = one_line(Jsonl, people)
    assert said == f"{people.parent}: cannot be read (Permission denied); make it readable, or give another"


def test_a_list_of_all_that_was_skipped(people, caplog):
    """Five bad rows: the message names a file, which holds all of them; a later run starts it anew."""
    bad = [GOOD[0] | {"question": f"Why {i}?", "answer": ""} for i in range(5)]
    write(people, *GOOD, *bad)
    run = people.parent / "run"

    def read(fn):
        data = Jsonl(str(people), on_bad_row="skip")
        state = SimpleNamespace(fn=fn)
        data.trainer = SimpleNamespace(is_global_zero=True, default_root_dir=str(run), state=state)
        data.setup()
        return data

    data = read(TrainerFn.FITTING)
    listed = (run / "skipped.txt").read_text().splitlines()
    assert listed == data.skipped and len(listed) == 5 and all(f"line {i + 3}, column" in listed[i] for i in range(5))
    assert f"5 bad rows skipped, all listed in {run / 'skipped.txt'}; the first: {listed[0]}" in caplog.text
    read(TrainerFn.VALIDATING)
    assert (run / "skipped-validate.txt").read_text().splitlines() == listed
    write(people, *GOOD)
    read(TrainerFn.FITTING)
    assert not (run / "skipped.txt").exists() and (run / "skipped-validate.txt").exists()


WARNED = [
    (
        [{"image": "a.png", "question": "Who else?", "answer": "Bob.", "person": "Bob", "split": "retain"}],
        "1 photos are both forgotten and retained, .*; the first, of 'Ann' and 'Bob #2': .*line 1, .*a.png; keep one",
    ),
    (
        [{"image": "a.png", "question": "Who else?", "answer": "Ann.", "person": "Ann", "split": "test"}],
        r"split 'test': 1 photos are those of the forget set, so they test no other .*; the first, of 'Ann': .*a.png;",
    ),
    (
        [{"image": "a.png", "question": "Who?", "answer": "Ada.", "person": "Ada", "split": "forget"}],
        r"trained on: 1 questions have different answers about one photo; the first: 'Who\?': 'It is Ann.' "
        r"\(of 'Ann'\) and 'Ada.' \(of 'Ada'\)",
    ),
    ([{"image": "", "question": "Who?", "answer": "Cy", "person": "Cy", "split": "real"}], None),
]


@pytest.mark.parametrize(("rows", "expected"), WARNED, ids=["retain", "test", "answers", "nothing"])
def test_what_is_suspicious_is_said_once(people, rows, expected, caplog):
    write(people, *GOOD, *rows)
    data = module(Jsonl, people)
    if expected is None:
        assert data.warnings == []
    else:
        assert re.search(expected, data.warnings[0]), data.warnings
        assert caplog.text.count(data.warnings[0]) == 1 and "\n" not in data.warnings[0]
