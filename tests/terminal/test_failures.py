"""What a file of one's own does wrong ends in one line that names file and line, wherever the file is named."""

import sys

import pytest
import yaml

from support.commands import ROOT
from viker_lightning.attacks import __main__ as attacks
from viker_lightning.cli import main as cli
from viker_lightning.grids import __main__ as experiments


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a file of one's own that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(ROOT)
    file = tmp_path / "file_of_mine.py"

    def write(text):
        file.write_text(text)
        monkeypatch.delitem(sys.modules, file.stem, raising=False)
        return file

    return write


def said(main, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert "\n" not in str(stop.value.code)
    return stop.value.code


ATTACK = ("run", "--gold=gold", "--only=file_of_mine.A")


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("class A(\n", 1, "SyntaxError: '(' was never closed"),
        ("class A:\n    x = there\n", 2, "NameError: name 'there' is not defined"),
        ("import json\njson.loads('')\n", 2, "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        ("import nowhere_at_all\n", 1, "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("import sys\nsys.exit(0)\n", 2, "SystemExit: 0"),
        ("raise RuntimeError('one\\n  two')", 1, "RuntimeError: one two"),
        ("assert False", 1, "AssertionError"),
    ],
)
def test_a_file_that_cannot_be_imported(mine, text, line, why):
    file = mine(text)
    assert said(attacks.main, *ATTACK) == f"error: {file}:{line}: {why}"


def test_it_is_the_same_of_a_method_and_of_a_score_in_a_grid(mine, tmp_path):
    """The parser wraps what a file raises in errors of its own."""
    file = mine("1 / 0\n")
    line = f"error: {file}:1: ZeroDivisionError: division by zero"
    assert said(cli.main, "fit", "--config=configs/mini/npo.yaml", "--model.method=file_of_mine.A") == line
    grid = yaml.safe_load((ROOT / "experiments/demo.yaml").read_text())
    grid["scales"]["mini"]["options"]["evaluation.scores"] = "file_of_mine.A"
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    assert said(experiments.main, "list", str(tmp_path / "grid.yaml"), "--scale=mini") == line


def test_what_is_meant_for_people_is_kept(mine, monkeypatch):
    mine(
        "from viker_lightning.errors import UserError\ntry:\n    {}['x']\n"
        "except KeyError as error:\n    raise UserError('x: give one') from error\n"
    )
    assert said(attacks.main, *ATTACK) == "error: x: give one"
    assert said(attacks.main, "--help") == 0
    monkeypatch.setattr(attacks, "attack", {}.__getitem__)
    with pytest.raises(TypeError):  # no file of one's own
        attacks.main([*ATTACK])
