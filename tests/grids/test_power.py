"""How many worlds show a difference: against plain lines, and what is wrong with a record or an option."""

import itertools
import json
import statistics

import numpy as np
import pytest

from support.documented import ROOT
from viker_lightning.grids import power
from viker_lightning.grids.__main__ import main

MEASURE = {"column": "test/x", "heading": "test X", "sign": "★", "kind": "distance", "good": -1}


def record(tmp_path, worlds=5, **other):
    """A reference at 0 and a rival farther away, in other worlds by more; one that was run in two worlds."""
    measured = {str(i): {"Ours": {"test/x": 0.0}, "Rival": {"test/x": 0.01 * i}} for i in range(worlds)}
    for world in list(measured.values())[:2]:
        world["Seldom"] = {"test/x": 0.5}
    whole = {"measures": [MEASURE], "measured": measured, "methods": ["Ours", "Rival", "Seldom"], "reference": "Ours"}
    file = tmp_path / "record.json"
    file.write_text(json.dumps(whole | other))
    return file


def plain_p(differences):
    """The share of all signs with a sum at least as far from 0, listed one by one."""
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(value >= abs(sum(differences)) - 1e-12 for value in sums) / len(sums)


@pytest.mark.parametrize(("spread", "rivals"), [(0.05, 1), (0.03, 3), (0.0, 6)])
def test_worlds_against_plain_lines(monkeypatch, spread, rivals):
    monkeypatch.setattr(power, "DRAWS", 40)
    drawn = np.random.default_rng(0).standard_normal((40, 32))
    for worlds in range(2, 12):
        shown = [plain_p([0.05 + spread * z for z in row[:worlds]]) <= 0.05 / rivals for row in drawn]
        if sum(shown) >= 0.8 * 40:
            break
    assert power.worlds_for(0.05, spread, rivals) == worlds >= power.fewest(rivals)


def test_what_is_too_many_worlds(monkeypatch):
    monkeypatch.setattr(power, "DRAWS", 5)
    assert power.worlds_for(0.05, 5.0, 1) is None and power.worlds_for(1.0, 0.0, 10**10) is None


def test_a_line_a_row(tmp_path, capsys):
    main(["power", str(record(tmp_path)), "--column=test X", "--difference=.1"])
    head, rival, seldom, _, note = capsys.readouterr().out.splitlines()
    spread = statistics.stdev(-0.01 * i for i in range(5))
    assert head.split() == ["row", "worlds", "spread", "for", "0.1"] and seldom.split() == ["Seldom", "2"]
    assert rival.split() == ["Rival", "5", f"{spread:.3f}", str(power.worlds_for(0.1, spread, 2))]
    assert "difference of 0.1 from Ours in 80 % of tables" in note and "2 rivals: at least 7." in note
    main(["power", str(record(tmp_path)), "--column=test/x", "--difference=.1", "--rivals=1"])
    assert "1 rival: at least 6." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "other", "line"),
    [
        (["--column=nothing"], {}, r"--column: found 'nothing', expected one of test X"),
        (["--difference=0"], {}, "--difference: found 0.0, expected a number above 0"),
        (["--difference=nan"], {}, "--difference: found nan, expected a number above 0"),
        (["--rivals=0"], {}, "--rivals: found 0, expected 1 or more"),
        ([], {"worlds": 2}, ".*record.json: found 2 worlds with test X of Ours and another row, expected 3 or more.*"),
        ([], {"reference": "Nobody"}, ".*found 0 worlds with test X of Nobody and another row.*"),
        (
            [],
            {"measures": 3},
            ".*record.json: found no record of worlds .*TypeError.*, expected the .json of a grid .*",
        ),
        ([], {"measures": [{"column": 3}]}, ".*record.json: found no record of worlds.*"),
    ],
)
def test_what_is_wrong_in_one_line(tmp_path, options, other, line):
    with pytest.raises(SystemExit, match=rf"^error: {line}$"):
        main(["power", str(record(tmp_path, **other)), *(options or ["--column=test X"])])


@pytest.mark.parametrize("text", ["[]", "{}", "no JSON", None])
def test_a_file_that_is_no_record(tmp_path, text):
    file = tmp_path / "file.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit, match=r"^error: .*file\.json: found no record of worlds"):
        main(["power", str(file)])


def test_it_comes_first(capsys):
    with pytest.raises(SystemExit):
        main(["--scale=mini", "power", "record.json"])
    assert "invalid choice: 'power'" in capsys.readouterr().err


@pytest.mark.extended
def test_the_page_shows_what_it_prints(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs/grids.md").read_text("utf-8")
    (command,) = (line for line in page.splitlines() if line.startswith("python -m viker_lightning.grids power"))
    main(command.split()[3:])
    table, _, _ = capsys.readouterr().out.partition("\n\n")
    assert f"```text\n{table}\n" in page
