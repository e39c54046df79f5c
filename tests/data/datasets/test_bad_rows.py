"""Whatever is wrong with a row, one line names file and row and says what to do; or the row is skipped and listed."""

import json
import os
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.reading import module, one_line
from viker_lightning.data.datasets import CLEAR, MLLMU
from viker_lightning.data.datasets.mllmu import TASKS, image_group
from viker_lightning.data.datasets.reading.parquet import read_rows
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import Split
from viker_lightning.errors import DataError

JUNK = {"bytes": b"junk", "path": "x"}


@pytest.fixture(scope="module")
def roots(cache):
    data = {"mllmu": MLLMU("mini/ci"), "clear": CLEAR("mini/clear-ci")}
    for benchmark in data.values():
        benchmark.prepare_data()
    return {name: benchmark.folder for name, benchmark in data.items()}


@pytest.fixture
def spoil(roots, tmp_path):
    """Changes cells of a row in a copy of a benchmark, or adds a copy of the row that is changed so."""

    def change(name, config, index, cells, add=False, schema=None):
        root = tmp_path / name
        shutil.copytree(roots[name], root)
        for file in sorted((root / config).glob("*.parquet")):
            table = pq.read_table(file)
            rows = table.to_pylist()
            if isinstance(index, int):
                break
            if index in [row["ID"] for row in rows]:  # an ID in one of the shards
                index = [row["ID"] for row in rows].index(index)
                break
        changed = rows[index] | {k: v(rows[index][k]) if callable(v) else v for k, v in cells.items()}
        rows = [*rows, changed] if add else [*rows[:index], changed, *rows[index + 1 :]]
        pq.write_table(pa.Table.from_pylist(rows, schema=schema or table.schema), file)
        return root, f"{file}, row {len(rows) - 1 if add else index}"

    return change


def first(key, value):
    """Changes a field of the first item of a list cell."""
    return lambda items: [items[0] | {key: value}, *items[1:]]


def first_choice(**fields):
    return lambda cell: cell | {"Image_Textual_Questions": first_of(cell, fields)}


def first_of(cell, fields):
    head, *rest = cell["Image_Textual_Questions"]
    return [head | fields, *rest]


def metadata(**fields):
    return lambda text: json.dumps([json.loads(text)[0] | fields])


MLLMU_ROWS = [
    ("ft_Data", {"ID": None}, "column 'ID': found None, expected text"),
    ("ft_Data", {"ID": "002"}, "ID '002' occurs twice"),
    ("ft_Data", {"ID": "002 (text)"}, "column 'ID': found '002 .text.', which would be taken for .* of '002'"),
    ("ft_Data", {"images": None, "image": JUNK}, "column 'image': not a readable image"),
    ("ft_Data", {"images": None, "image": None}, "column 'image': no image bytes"),
    ("ft_Data", {"images": [JUNK]}, r"column 'images\[0\]': not a readable image"),
    ("ft_Data", {"metadata": "{"}, "column 'metadata': not JSON"),
    ("ft_Data", {"metadata": "[]"}, "write a non-empty list"),
    ("ft_Data", {"metadata": "[" * 100_000}, "column 'metadata': not JSON"),
    ("ft_Data", {"metadata": "[" + "1" * 5000 + "]"}, "column 'metadata': not JSON"),
    ("ft_Data", {"metadata": metadata(Answer="\ud800")}, "column 'metadata, Answer': not UTF-8 text"),
    ("ft_Data", {"metadata": metadata(Question="\u200b")}, r"Question is '\\u200b'"),
    ("ft_Data", {"metadata": "x" * (2**20 + 1)}, "a text of 1048577 characters, expected at most 1048576; shorten it"),
    ("ft_Data", {"metadata": None}, "column 'metadata': found None, expected text"),
    ("ft_Data", {"metadata": metadata(Answer=" ")}, "Answer is ' '"),
    ("ft_Data", {"metadata": metadata(Question=7)}, "Question is 7"),
    ("ft_Data", {"metadata": metadata(Private="Oslo")}, "Private is 'Oslo'; write a list"),
    (
        "ft_Data",
        {"metadata": metadata(Private=["Oslo"])},
        "column 'metadata, Private': 'Oslo' does not occur in the answer",
    ),
    ("ft_Data", {"metadata": '[{"Answer": "a", "Answer": "b"}]'}, "not JSON .the field 'Answer' occurs twice"),
    ("ft_Data", {"metadata": metadata(ID="777")}, "a question of ID '777' in the row of '001'"),
    (
        "forget_10",
        {"Classification_Task": None, "Generation_Task": [], "Mask_Task": None},
        "column 'Generation_Task': no task asks anything",
    ),
    ("forget_10", {"ID": "999"}, "ID '999' has no row in ft_Data"),
    ("forget_10", {"image": JUNK}, "column 'image': not a readable image"),
    ("forget_10", {"Generation_Task": first("Ground_Truth", "")}, "Ground_Truth is ''"),
    ("forget_10", {"Generation_Task": first("Type", "Video")}, "Type is 'Video'; write one of"),
    ("forget_10", {"Mask_Task": first("Question", None)}, "Question is None"),
    ("forget_10", {"Classification_Task": first_choice(Correct_Answer="E")}, "Correct_Answer 'E' is not one of"),
    (
        "forget_10",
        {"Classification_Task": first_choice(Options={"A": None, "B": "x"}, Correct_Answer="A")},
        "'A' is not",
    ),
    ("forget_10", {"Classification_Task": first_choice(Options={"A": "x"}, Correct_Answer="A")}, "at least two"),
    (
        "forget_10",
        {"Classification_Task": first_choice(Options={"A": "x", "B": " "}, Correct_Answer="A")},
        "option B is",
    ),
    ("forget_10", {"Classification_Task": first_choice(Question="")}, "Question is ''"),
    ("Test_Set", {"images": []}, "column 'images': found .*, expected a list of images"),
]


@pytest.mark.parametrize(("config", "cells", "expected"), MLLMU_ROWS)
def test_mllmu(spoil, roots, config, cells, expected):
    forgotten = pq.read_table(roots["mllmu"] / "forget_10").to_pylist()[0]["ID"]
    root, row = spoil("mllmu", config, forgotten if config == "Test_Set" else 0, cells)
    said = one_line(MLLMU, root)
    assert re.search(expected, said), said
    assert str(root) in said and (row in said or "occurs twice" in said)
    skipping = module(MLLMU, root, on_bad_row="skip")
    assert skipping.skipped and said in skipping.skipped


def test_in_forget_and_retain(spoil, roots, caplog):
    forgotten = pq.read_table(roots["mllmu"] / "forget_10").to_pylist()[0]["ID"]
    root, row = spoil("mllmu", "retain_90", 0, {"ID": forgotten})
    said = one_line(MLLMU, root)
    assert row in said and f"ID '{forgotten}' is in the forget set, too ({root / 'forget_10'}" in said
    data = module(MLLMU, root, on_bad_row="skip")
    assert forgotten in data.forget_ids and forgotten not in data.retain_ids and len(data.retain_ids) == 9
    assert data.skipped == [said] and "1 bad rows skipped" in caplog.text and said in caplog.text
    assert not {g.person for g in data.evaluation(Split.RETAIN)} & set(data.forget_ids)


@pytest.mark.parametrize(
    ("type_", "value"), [(pa.string(), "text"), (pa.list_(pa.string()), ["text"]), (pa.int64(), 3)], ids=str
)
@pytest.mark.parametrize("column", ["Generation_Task", "Classification_Task", "image", "ID"])
def test_wrong_type(spoil, roots, column, type_, value):
    if (column, type_) == ("ID", pa.string()):
        return
    schema = pq.read_schema(next((roots["mllmu"] / "forget_10").glob("*.parquet")))
    schema = schema.set(schema.get_field_index(column), pa.field(column, type_))
    root, row = spoil_all(spoil, roots, column, value, schema)
    said = one_line(MLLMU, root)
    assert row in said and column in said


def spoil_all(spoil, roots, column, value, schema):
    root, row = spoil("mllmu", "forget_10", 0, {})
    file = next((root / "forget_10").glob("*.parquet"))
    rows = [r | {column: value} for r in pq.read_table(file).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    return root, row


def not_utf8(file, text):
    """Swaps the first letter of a text in an uncompressed, unencoded parquet file for a byte that is not UTF-8."""
    pq.write_table(pq.read_table(file), file, compression="none", use_dictionary=False)
    data = file.read_bytes()
    assert text.encode() in data
    file.write_bytes(data.replace(text.encode(), b"\xff" + text.encode()[1:]))


def test_questions_under_another_name(roots):
    (row, *_) = read_rows(roots["mllmu"] / "forget_10", [*TASKS, "image"], pytest.fail)
    row["Classification_Task"] = {"Image_Questions": row["Classification_Task"]["Image_Textual_Questions"]}
    with pytest.raises(DataError, match=r"row 0, .*found \['Image_Questions'\], without 'Image_Textual_Questions'"):
        image_group(row, Split.FORGET, "image", 0)


def test_people_without_test_photos_are_named(roots, tmp_path, caplog):
    root = shutil.copytree(roots["mllmu"], tmp_path / "mllmu")
    forgotten = pq.read_table(root / "forget_10").to_pylist()[0]["ID"]
    for file in (root / "Test_Set").glob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.filter([key != forgotten for key in table.column("ID").to_pylist()]), file)
    data = module(MLLMU, root)
    assert forgotten not in {g.person for g in data.evaluation(Split.TEST)}
    assert f"no row for 1 of {len(data.forget_ids)} people of the split 'test'" in caplog.text


def test_parquet_text_that_is_not_utf8(spoil):
    root, row = spoil("clear", "forget10", 1, {"caption": "Zzz Qqq reads."})
    not_utf8(next((root / "forget10").glob("*.parquet")), "Zzz Qqq reads.")
    said = one_line(CLEAR, root)
    assert said == f"{row}, column 'caption': not UTF-8 text (invalid start byte); save it in UTF-8"
    data = module(CLEAR, root, on_bad_row="skip")
    assert data.skipped == [said] and len(data.forget_ids) == 7


CLEAR_ROWS = [
    ("forget10", {"name": None}, "column 'name': found None, expected text"),
    ("forget10", {"name": "Zoe #2"}, "column 'name': found 'Zoe #2', which would be taken for a part of 'Zoe'"),
    ("forget10", {"caption": "  "}, "column 'caption': found '  ', expected text"),
    ("forget10", {"image": JUNK}, "column 'image': not a readable image"),
    ("forget10", {"image": None}, "column 'image': no image bytes"),
    ("forget10_perturbed", {"name": "Zoe"}, "column 'name': 'Zoe' is not in the forget set"),
    ("forget10_perturbed", {"paraphrased_caption": ""}, "column 'paraphrased_caption': found ''"),
    (
        "forget10_perturbed",
        {"perturbed_captions": []},
        "column 'perturbed_captions': found .*, expected a list of texts",
    ),
    ("forget10_perturbed", {"perturbed_names": ["A", None]}, r"column 'perturbed_names\[1\]': found None"),
    ("forget10_perturbed", {"perturbed_names": lambda n: [*n[1:], "NAME"]}, "holds the right answer"),
    ("real_faces", {"options": ["NAME"]}, "give at least one wrong answer"),
    ("real_faces", {"options": None}, "column 'options': found None"),
    ("real_world", {"question": ""}, "column 'question': found ''"),
    ("real_world", {"answer": None}, "column 'answer': found None"),
    ("retain90", {"name": "NAME"}, "column 'name': 'NAME' is in the forget set, too"),
    ("retain_perturbed", {"name": "NAME"}, "column 'name': 'NAME' is in the forget set, too"),
    ("base", {"answer": ""}, "column 'answer': found ''"),
    ("forget10+tofu", {"question": None}, "column 'question': found None"),
    ("forget10+tofu", {"private": ["Oslo"]}, "column 'private': 'Oslo' does not occur in the answer"),
]


@pytest.mark.parametrize(("config", "cells", "expected"), CLEAR_ROWS)
def test_clear(spoil, roots, config, cells, expected):
    source = "real_faces" if config == "real_faces" else "forget10"
    name = pq.read_table(roots["clear"] / source).to_pylist()[0]["answer" if source == "real_faces" else "name"]

    def named(value):
        if callable(value):
            return lambda cell: named(value(cell))
        return [named(v) for v in value] if isinstance(value, list) else name if value == "NAME" else value

    index = 8 if config.endswith("+tofu") else 0
    root, row = spoil("clear", config, index, {k: named(v) for k, v in cells.items()})
    said = one_line(CLEAR, root, tofu=True)
    assert said.startswith(row) and re.search(expected.replace("NAME", name), said), said
    data = module(CLEAR, root, tofu=True, on_bad_row="skip")
    assert data.skipped == [said]


def test_clear_row_twice(spoil):
    root, row = spoil("clear", "forget10", 2, {}, add=True)
    assert one_line(CLEAR, root).startswith(f"{row}, column 'image': the row says the same as {root}")
    assert len(module(CLEAR, root, on_bad_row="skip").forget_ids) == 8


def test_clear_text_twice(spoil):
    root, row = spoil("clear", "forget10+tofu", 9, {}, add=True)
    said = one_line(CLEAR, root, tofu=True)
    assert said.startswith(f"{row}, column 'question': the row says the same as {root}")


def test_photo_of_the_forget_set_under_another_name(spoil, roots):
    image = pq.read_table(roots["clear"] / "forget10").to_pylist()[0]["image"]
    root, row = spoil("clear", "retain90", 3, {"image": image})
    assert one_line(CLEAR, root).startswith(f"{row}, column 'image': this photo is in the forget set, too")


@pytest.mark.parametrize(("config", "column"), [("forget10", "name"), ("real_faces", "options"), ("base", "question")])
def test_missing_column(spoil, config, column):
    root, _ = spoil("clear", config, 0, {})
    file = next((root / config).glob("*.parquet"))
    pq.write_table(pq.read_table(file).drop_columns([column]), file)
    for mode in ("error", "skip"):  # a file without a column is no bad row
        assert f"{file}: column '{column}' is missing; found" in one_line(CLEAR, root, on_bad_row=mode)


def test_nobody_left(spoil, roots, tmp_path):
    root, _ = spoil("clear", "forget10", 0, {})
    file = next((root / "forget10").glob("*.parquet"))
    table = pq.read_table(file)
    pq.write_table(pa.Table.from_pylist([r | {"name": None} for r in table.to_pylist()], schema=table.schema), file)
    assert "nobody is left to forget, 8 bad rows being skipped" in one_line(CLEAR, root, on_bad_row="skip")


def test_what_is_suspicious_is_warned_of(spoil, roots, caplog):
    """An option that repeats and a cloze without blank do not stop a published benchmark."""
    options = {"A": "Mora", "B": "Mora", "C": "Lun", "D": "Tam"}
    cells = {"Classification_Task": first_choice(Options=options, Correct_Answer="C")}
    root, _ = spoil("mllmu", "forget_10", 0, cells | {"Mask_Task": first("Question", "Lives in Lun.")})
    data = module(MLLMU, root)
    repeated, blank = (line for line in data.warnings if "split 'forget'" in line)
    assert "1 questions have an option twice; the first, of " in repeated and "['Mora', 'Mora', 'Lun'," in repeated
    assert "1 clozes have no blank; the first, of " in blank and blank.endswith("'Lives in Lun.'; write it as __")
    assert caplog.text.count(blank) == 1


@pytest.mark.parametrize("name", ["mllmu", "clear"])
def test_nothing_is_suspicious_about_the_embedded_benchmarks(roots, name):
    kind, options = (MLLMU, {}) if name == "mllmu" else (CLEAR, {"tofu": True, "ask_names": True})
    assert module(kind, roots[name], **options).warnings == []


def test_who_is_in_neither_list_is_named(roots, tmp_path, caplog):
    root = shutil.copytree(roots["mllmu"], tmp_path / "mllmu")
    (file,) = (root / "retain_90").glob("*.parquet")
    pq.write_table(pq.read_table(file).slice(1), file)
    module(MLLMU, root)
    assert f"{root}: 1 people of ft_Data are neither forgotten nor retained: " in caplog.text


def test_a_damaged_page_is_told_in_one_line(roots, tmp_path):
    root = shutil.copytree(roots["mllmu"], tmp_path / "mllmu")
    file = sorted((root / "ft_Data").glob("*.parquet"))[0]
    data = bytearray(file.read_bytes())
    data[4:40] = bytes(36)
    file.write_bytes(data)
    assert "\n" not in one_line(MLLMU, root)


def test_a_shard_that_is_a_pipe(roots, tmp_path):
    root = shutil.copytree(roots["mllmu"], tmp_path / "mllmu")
    os.mkfifo(root / "ft_Data/z.parquet")
    assert one_line(MLLMU, root) == f"{root / 'ft_Data/z.parquet'}: a folder, pipe or device; give a parquet file"


def test_rows_without_image(tmp_path):
    image = irrelevant_images("scenes", 1, size=16)[0].data
    type_ = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": image, "path": "a"}, None, {"bytes": None, "path": None}]
    table = pa.table({"image": pa.array(images, type_), "question": ["a", "b", "c"]})
    (tmp_path / "x").mkdir()
    pq.write_table(table, tmp_path / "x/train.parquet")
    assert [
        (r["question"], r.where[-5:]) for r in read_rows(tmp_path / "x", ["question"], pytest.fail, empty="image")
    ] == [
        ("b", "row 1"),
        ("c", "row 2"),
    ]
