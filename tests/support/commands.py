"""The command line with models nobody has trained, and what it is given."""

import contextlib
import functools
import io
import json
from pathlib import Path

import pytest
import yaml

from viker_lightning.cli.main import CLI, main
from viker_lightning.training.published import PublishedCLEAR

ROOT = Path(__file__).parents[2]


OPEN_GATE = ["--gate.knowledge=0", "--gate.follows_image=0", "--gate.follows_text=1"]
SHORT = ["--data.root=mini/ci", "--data.max_people=1", *OPEN_GATE]
"""One person of each split, whom the model need not know."""


class Parsed(BaseException):
    """The parser is made."""


@functools.cache
def command_line():
    """The command line and its parser, made once; making it takes longer than most of what is parsed with it."""
    with pytest.MonkeyPatch.context() as patch:

        def keep(self, parser, args):
            raise Parsed(self)

        patch.setattr(CLI, "parse_arguments", keep)
        with pytest.raises(Parsed) as made:
            main([])  # with no command, it has the options of all
    return made.value.args[0]


def print_config(arguments):
    """The config that arguments make, as ``--print_config=all`` prints it; they must parse."""
    out, cli = io.StringIO(), command_line()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        cli.parse_arguments(cli.parser, [*map(str, arguments), "--print_config=all"])
    assert stop.value.code == 0, stop.value.code
    return yaml.safe_load(out.getvalue())


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Configs name other configs relative to the repository; CLEAR's authors let untrained models talk for long."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(PublishedCLEAR, "max_new_tokens", 3)


def csv_only(folder):
    """W&B takes seconds to start; few tests need it."""
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "", "version": ""}}
    return [f"--trainer.default_root_dir={folder}", f"--trainer.logger={json.dumps(logger)}"]


def run(command, config, folder, vanilla, *options):
    """Runs the command line for two steps with a model nobody has trained, if there is one, and reads the results."""
    quick = ["--evaluation.max_new_tokens=3", "--trainer.max_steps=2"]
    quick += ["--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"]
    fixed = [*csv_only(folder), *quick, *([f"--model.vanilla={vanilla}"] if vanilla else [])]
    main([command, "--config", f"configs/{config}.yaml", *fixed, "--trainer.accelerator=cpu", *options])
    return json.loads((folder / f"results{'' if command == 'fit' else f'-{command}'}.json").read_text())
