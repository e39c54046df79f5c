"""What needs no model: the version, what there is, and what commands are for; the config that options come to."""

import argparse
import contextlib
import io
import subprocess
import sys
from importlib.util import find_spec

import pytest
import yaml

from support.commands import ROOT, command_line, here  # noqa: F401 - `here` is used by every test of this file
from viker_lightning import __version__, methods
from viker_lightning.__main__ import main
from viker_lightning.cli.options import COMMANDS as PARSED
from viker_lightning.data import datasets
from viker_lightning.terminal.commands import COMMANDS, LISTS, PROGRAMS, Listed, listed

HEAVY = ("torch", "lightning", "transformers", "wandb", "jsonargparse", "gradio")


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["chat", "--help"]])
def test_it_says_so_without_loading_anything(words):
    """What is quick is quick because nothing is imported."""
    found = f"import sys; sys.argv = ['x', *{words}]; from viker_lightning.__main__ import main\ntry: main()\n"
    found += f"except SystemExit: pass\nsys.exit(str([name for name in {HEAVY} if name in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, timeout=300)
    assert done.stderr.strip() == "", "nothing of that is there"
    assert done.stdout.startswith(f"viker-lightning {__version__}" if words == ["--version"] else "usage: ")


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["-c", "x.yaml", "--help"]])
def test_help_has_every_command_in_a_line(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/somewhere/viker_lightning/__main__.py"])
    main(words)
    out = capsys.readouterr().out
    assert out.startswith("usage: python -m viker_lightning COMMAND ") and "__main__" not in out
    for name, text in (COMMANDS | LISTS | {word: text for word, (_, text) in PROGRAMS.items()}).items():
        assert f"  {name:12} {text}\n" in out
    assert all(len(line) <= 120 for line in out.splitlines())
    assert PARSED is COMMANDS


def test_help_of_a_command(monkeypatch, capsys):
    cli = command_line()
    with pytest.raises(SystemExit) as stop:
        cli.parse_arguments(cli.parser, ["fit", "--help"])
    out = capsys.readouterr().out
    assert not stop.value.code and out.startswith("usage: viker-lightning ") and COMMANDS["fit"][:40] in out
    assert cli.parser._subcommands_action.choices["preview"].description == COMMANDS["preview"]
    with pytest.raises(SystemExit):
        cli.parse_arguments(cli.parser, ["preview", "--help"])
    assert "--questions" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.parse_arguments(cli.parser, ["check", "--help"])
    assert COMMANDS["check"][:40] in capsys.readouterr().out


def test_programs_are_there():
    for word, (module, _) in PROGRAMS.items():
        with contextlib.redirect_stdout(io.StringIO()) as shown, pytest.raises(SystemExit) as stop:
            main([word, "--help"])
        assert not stop.value.code and "usage: " in shown.getvalue() and find_spec(f"viker_lightning.{module}")


def test_no_command(capsys):
    expected = r"error: command: found none, expected fit, .*, datasets, reporting, .*, clean_cache; --help"
    with pytest.raises(SystemExit, match=expected) as stop:
        main([])
    assert "\n" not in str(stop.value.code)


def test_every_method_in_a_line(capsys):
    main(["methods"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(methods.NAMES)]] == methods.NAMES
    by_name = {line.split()[0]: line for line in lines if line}
    assert by_name["ViKeR"].split()[1] == "2601.22020" and by_name["ViKeR"].endswith("[irrelevant images]")
    assert by_name["NPO"].endswith("a preference without a winner [frozen model]")
    assert by_name["GradientAscent"].endswith("[forget questions alone]") and by_name["Held"].split()[1] == "ours"


def test_every_dataset_in_a_line(capsys):
    main(["datasets"])
    lines = capsys.readouterr().out.splitlines()
    names = [name for name in datasets.__all__ if name != "Benchmark"]
    assert [line.split()[0] for line in lines[: len(names)]] == names
    by_name = {line.split()[0]: line for line in lines if line}
    assert all(f"mini/{size}" in by_name["MLLMU"] for size in datasets.MLLMU.embedded.sizes)
    assert "embedded: " not in by_name["Jsonl"] and "row a question" in by_name["Jsonl"]


def test_nothing_stands_behind_a_list(capsys):
    with pytest.raises(SystemExit, match="error: methods: found 'NPO', expected nothing behind it"):
        main(["methods", "NPO"])
    main(["datasets", "--help"])
    assert LISTS["datasets"] in capsys.readouterr().out


def test_a_config_is_printed_as_far_as_it_differs(capsys):
    """What is printed makes the same config again."""
    cli, printed = command_line(), []
    given = ["fit", "--config=configs/mini/npo.yaml", "--model.lr=0.25"]
    for option in ("--print_config", "--print_config=all"):
        with pytest.raises(SystemExit):
            cli.parse_arguments(cli.parser, [*given, option])
        printed.append(capsys.readouterr().out)
    short, whole = map(yaml.safe_load, printed)
    assert short["model"]["init_args"]["lr"] == 0.25 and "weight_decay" not in short["model"]["init_args"]
    assert "gate" not in short and "gate" in whole and len(printed[0]) < len(printed[1]) / 2
    assert whole["model"]["init_args"]["weight_decay"] == 0


def test_a_short_config_stands_for_the_whole(tmp_path, capsys):
    cli, printed = command_line(), []
    given = ["fit", "--config=configs/mini/npo.yaml"]
    for option in ("--print_config", "--print_config=all"):
        with pytest.raises(SystemExit):
            cli.parse_arguments(cli.parser, [*given, option])
        printed.append(capsys.readouterr().out)
    (tmp_path / "short.yaml").write_text(printed[0])
    with pytest.raises(SystemExit):
        cli.parse_arguments(cli.parser, ["fit", f"--config={tmp_path}/short.yaml", "--print_config=all"])
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(printed[1])


@pytest.mark.parametrize("typed", [["a,b"], ["a", "b"], ["a,", "b"]])
def test_lists_are_typed_with_commas_or_spaces(typed):
    made = argparse.ArgumentParser()
    made.add_argument("--only", nargs="+", action=Listed)
    assert made.parse_args(["--only", *typed]).only == ["a", "b"]
    assert listed(["Gold, other seed", "a,b"], {"Gold, other seed"}) == ["Gold, other seed", "a", "b"]
