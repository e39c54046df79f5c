"""README.md and docs/: whatever they tell a reader to type is typed here.

In a folder that looks like the repository, with the files that the pages themselves show (people.jsonl and so on) and
finished runs of one step. Every command must be one this file knows how to run; another one fails its test.

What is replaced, since nobody can wait, download or have eight GPUs here:

- `python -m viker_lightning ...` is first parsed as written (``--print_config``), then run with one step on one person
  of the smallest embedded data in place of what is on the hub, on one CPU process, with answers of three tokens, a CSV
  logger, open gate and bounds, and models with random weights in place of hub ids and of configs of vanilla runs
  (tiny ones, too, in place of CLIP, judge and gibberish classifier; no quantisation). What is there is not replaced.
- `torchrun` and `srun` are parsed as above and run as one process; test_launchers.py starts two of them.
- `make` prints what it would do (``make -n``), and the options of every Python program in there are parsed by it.
- `chat` is parsed, and its runs must be there; tests/cli/chat opens the page.
- `experiments run` and `cell` run nothing: the cells are listed.
- `lm_eval` and `lmms_eval` are programs of others: their options must be some that they had when they were tried, what
  they read of a run must be what export writes; test_elsewhere.py runs lm_eval where it is installed.
- `git clone` gets no copy: the folder it makes must be the one that is gone to, by the project's name.
- `pip install`: the extras must exist; `source`: the environment that make makes. `wandb sync` and `wandb agent` need
  a network: the command must exist.

Training runs are marked slow; without that mark they are parsed only.
"""

import contextlib
import functools
import io
import itertools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from support import documented
from support.commands import print_config
from support.documented import EXTRAS, PAGES, PROJECT, ROOT, blocks, check_installed
from viker_lightning.__main__ import main as front_door
from viker_lightning.attacks.__main__ import parser
from viker_lightning.attacks.lmms_tasks import TASK
from viker_lightning.attacks.settings import chosen
from viker_lightning.cli.chat.__main__ import parser as chat_parser
from viker_lightning.cli.main import main
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.grids import read_grid
from viker_lightning.grids.tuning import tune
from viker_lightning.grids.tuning.spaces import read_spaces
from viker_lightning.storage.runs import names as names_in_run
from viker_lightning.terminal.commands import PROGRAMS

LINKED = ("configs", "experiments", "benchmarks", "studies", "src", "tests", "docs", "pyproject.toml", "README.md")
ALL = {page.name: blocks(page) for page in PAGES}
FILES = {block.file: block for found in ALL.values() for block in found if block.file}
STAGES = ("fit", "validate", "test", "predict", "preview", "check")
LISTS = [["python", "-m", "viker_lightning", name] for name in ("methods", "datasets")]
NEW = ["python", "-m", "pytest", "test_push_away.py"]
"""Of a file that ``new`` writes; tests/cli/test_new.py runs it."""
ASKED = {"--model", "--model_args", "--tasks", "--batch_size", "--output_path", "--device", "--include_path"}
ELSEWHERE = {"lm_eval": ASKED, "python": ASKED | {"--log_samples", "--force_simple"}}
"""Options of lm_eval 0.4.13, and of ``python -m lmms_eval`` 0.7.3."""
MODULES = (*PROGRAMS, "reporting.dashboard", "grids.compare", "grids.power")


def python(words):
    """The words behind ``python -m viker_lightning``, if they are such a command, else ``None``."""
    while words and (words[0] in ("srun", "torchrun") or re.match(r"\w+=", words[0])):
        launcher, words = words[0], words[1:]
        if launcher in ("srun", "torchrun"):  # with options of their own
            words = ("python", *words[words.index("-m") :])
    runs = words[:3] == ("python", "-m", "viker_lightning") and list(words) not in LISTS
    return words[3:] if runs and not {*words[3:4]} & {*PROGRAMS} else None


COMMANDS = documented.commands()
RUNS = [command for command in COMMANDS if python(command.words)]
OTHERS = [command for command in COMMANDS if not python(command.words)]
FITS = [c for c in RUNS if python(c.words)[0] == "fit" and not any(w.startswith("--print_config") for w in c.words)]


def test_there_is_something_to_check():
    assert len(PAGES) >= 2 and len(FITS) > 5 and len(OTHERS) > 5 and "people.jsonl" in FILES


def write_files(folder):
    """Everything a page shows the text of, with the photos its rows name; and pictures of nobody."""
    photos = irrelevant_images("people", 8, size=32)
    for name, block in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(block.text, "utf-8")
        for i, path in enumerate(sorted(set(re.findall(r"photos/[\w.]+", block.text)))):
            photo = (folder / name).parent / path
            photo.parent.mkdir(exist_ok=True)
            photo.write_bytes(photos[i].data)
    (folder / "pictures").mkdir()
    for i, picture in enumerate(irrelevant_images("scenes", 12, size=32)):
        (folder / f"pictures/{i}.png").write_bytes(picture.data)


@pytest.fixture(scope="module")
def prepared(base_folder, tmp_path_factory):
    """Runs that the pages speak of: one of ViKeR, and copies of it under other names; models nobody has trained."""
    folder = tmp_path_factory.mktemp("desk")
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    write_files(folder)
    for name in ("mini/vanilla", "mini/gold", "demo/gold"):
        shutil.copytree(base_folder, folder / "runs" / name / "model")
        (folder / "runs" / name / "results.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        given = ["fit", "--config=configs/mini/viker.yaml", "--data.root=mini/ci", "--model.vanilla=runs/mini/vanilla"]
        main([*given, *tiny("fit", print_config(given), SimpleNamespace(base=base_folder, folder=folder))])
    for file in ("results.json", "predictions.parquet", "provenance.json"):
        shutil.copy(folder / "runs/mini/viker" / file, folder / "runs/mini/gold")
    for name in ("demo/viker-0", "demo/npo-0", "demo/gold", "first", "mllmu/viker", "people/viker"):
        shutil.copytree(folder / "runs/mini/viker", folder / "runs" / name, dirs_exist_ok=True)
    record = json.loads((folder / "runs/first/provenance.json").read_text())
    record["data"]["requests"] = [people[:1] for people in record["data"]["requests"]]  # one of two: others come later
    (folder / "runs/first/provenance.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def desk(prepared, base_folder, tmp_path, monkeypatch, request):
    """A copy of what was prepared, in which a command may do what it likes."""
    folder = tmp_path / "desk"
    shutil.copytree(prepared, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return SimpleNamespace(base=base_folder, folder=folder, fixture=request.getfixturevalue)


@functools.cache
def config_of(words):
    """The whole config of a command as it is written; several pages may have the same one."""
    return print_config(python(words))


def value(config, path):
    """An option of a config by its path on the command line; ``None`` if it is not there."""
    for name in path.split("."):
        config = (config or {}).get(name) or (config or {}).get("init_args", {}).get(name)
    return config


def tiny(stage, config, desk):
    """Options that make a command of this config quick; see the docstring of this file."""
    model, data = (config[name]["class_path"].rsplit(".", 1)[-1] for name in ("model", "data"))
    goes_on, run = value(config, "ckpt_path") == "last", config["trainer"]["default_root_dir"]
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": run, "name": "", "version": ""}}
    found = [f"--trainer.max_steps={1 + goes_on}", "--trainer.enable_progress_bar=false"]
    found += ["--evaluation.max_new_tokens=3"]
    found += ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"]
    found += ["--trainer.precision=32-true", f"--trainer.logger={json.dumps(logger)}", "--model.dtype=float32"]
    found += tiny_data(data, config, desk)
    if model == "Unlearn":
        found += tiny_unlearning(stage, config, desk)
    if model == "Finetune":
        found += [f"--model.base={desk.base}"]
    beside = {"evaluation.judge": desk.base, "evaluation.gibberish": "classifier", "audit.clip": "clip"}
    beside |= {"model.clip": "clip", "model.method.gold": desk.base, "evaluation.gold": desk.base}
    for option, other in beside.items():
        named = value(config, option)
        if named and (not Path(named).exists() or named.endswith(".yaml")):  # nobody waits for a vanilla run
            found += [f"--{option}={desk.fixture(other) if isinstance(other, str) else other}"]
    if value(config, "model.family"):
        found += ["--model.family=null"]  # the model is a tiny LLaVA
    if value(config, "model.quantize"):
        found += ["--model.quantize=null"]  # a tiny model has nothing to gain, bitsandbytes may not be there
    return found


def tiny_data(data, config, desk):
    """Few people, of small data in place of what is on the hub."""
    found = ["--data.max_people=1"] if data != "Questions" else []
    if data == "FIUBench":
        found += ["--data.first=6"]
    if not Path(value(config, "data.root")).exists():
        found += [f"--data.root={substitute(data, desk)}"]
    return found


def tiny_unlearning(stage, config, desk):
    """A vanilla model without training, which would meet no bound of the gate or the guard."""
    found = []
    if not names_in_run.is_finished(value(config, "model.vanilla")):
        found += [f"--model.vanilla={desk.base}", "--model.revision=null"]
    if stage == "fit":
        found += ["--gate.knowledge=0", "--gate.follows_image=0", "--gate.follows_text=1"]
        bounds = {"guard.max_retain_loss": 100, "guard.max_repetition": 1}
        found += [f"--{name}={bound}" for name, bound in bounds.items() if value(config, name) is not None]
    return found


def substitute(data, desk):
    """Small data in place of what is on the hub."""
    if data in ("MLLMU", "CLEAR"):
        return {"MLLMU": "mini/ci", "CLEAR": "mini/clear-ci"}[data]
    folder = desk.folder / data
    folder.mkdir()
    if data == "UMUBench":
        from support import umu

        for config, people in (("forget_5", umu.FORGET), ("retain_95", umu.RETAIN), ("Real_Person_Set", umu.REAL)):
            umu.write(folder, config, [umu.row(i) for i in people])
        return folder
    from support import fiubench as fiu

    (folder / "SFHQ").mkdir()
    for i in range(len(fiu.NAMES)):
        (folder / f"SFHQ/SFHQ_pt1_{fiu.uid(i)}.jpg").write_bytes(fiu.picture(i))
    fiu.write(folder, [fiu.person(i) for i in range(len(fiu.NAMES))])
    return folder


def write_data(command, desk):
    """Runs the Python blocks that stand above a command on its page: some write the data it names."""
    for block in ALL[command.page]:
        if block.language == "python" and not block.file and block.line < command.line:
            runpy.run_path(str(script(block, desk)))


def script(block, desk):
    file = desk.folder / f"block_{block.line}.py"
    file.write_text(block.text, "utf-8")
    return file


@pytest.mark.extended
@pytest.mark.parametrize("command", RUNS, ids=str)
def test_a_command_parses_as_written(command, prepared, monkeypatch):
    monkeypatch.chdir(prepared)
    monkeypatch.syspath_prepend(str(prepared))
    arguments = list(python(command.words))
    assert arguments[0] in STAGES
    if "--help" not in arguments:
        config_of(command.words)


def run(command, desk):
    arguments = list(python(command.words))
    write_data(command, desk)
    config, started = config_of(command.words), time.time()
    main([*arguments, *tiny(arguments[0], config, desk)])
    if arguments[0] in ("preview", "check"):  # they leave nothing
        return
    left = {"fit": "results.json", "validate": "results-validate.json", "test": "results-test.json"}
    file = Path(config["trainer"]["default_root_dir"]) / left.get(arguments[0], "answers.jsonl")
    assert file.stat().st_mtime >= started - 2, "the command wrote its results where it says"


@pytest.mark.extended
@pytest.mark.parametrize("command", [c for c in RUNS if python(c.words)[0] != "fit"], ids=str)
def test_a_question_to_a_model(command, desk):
    run(command, desk)


@pytest.mark.slow
@pytest.mark.parametrize("command", FITS, ids=str)
def test_a_training_run(command, desk):
    run(command, desk)


@pytest.mark.extended
@pytest.mark.parametrize("command", OTHERS, ids=str)
def test_another_command(command, desk, capsys):
    words = list(command.words)
    module, given = program(words)
    if module:
        run_module(module, given)
    elif words[0] == "make":
        for line in made(words):
            check_made(line)
    elif words[:2] == ["pip", "install"]:
        check_installed(words[2:])
    elif words[0] in ("git", "source"):
        check_first(words)
    elif words[0] in ("wandb", "lm_eval") or words[:3] == ["python", "-m", "lmms_eval"]:
        (check_wandb if words[0] == "wandb" else check_elsewhere)(words)
    elif words in LISTS:
        front_door(words[3:])
        assert len(capsys.readouterr().out.splitlines()) > 5
    elif words == NEW or (words[0] == "python" and len(words) == 2):  # a script
        assert words == NEW or (ROOT / words[1]).is_file()
    elif words[:2] == ["python", "benchmarks/engine.py"]:
        script = (ROOT / words[1]).read_text()
        assert all(f'\n    "{section}": {section}_section,\n' in script for section in words[2:])
    else:
        pytest.fail(f"{command.page}, line {command.line}: this test does not know how to run {' '.join(words)!r}")


def check_first(words):
    """What comes before all others: the folder of a clone is gone to, the environment is that of make."""
    if words[0] == "git":
        assert words[1] == "clone" and words[3:] == [PROJECT["name"], "&&", "cd", PROJECT["name"]]
    else:
        assert words[1:] == [".venv/bin/activate"] and "\nVENV ?= .venv\n" in (ROOT / "Makefile").read_text()


def check_wandb(words):
    """W&B has the command, and it is given a run's folder."""
    import wandb.cli.cli

    known = wandb.cli.cli.cli.commands
    if words[1] == "leet" and "leet" not in known:
        pytest.skip("this version of W&B has no leet")
    assert words[1] in known and (words[1] == "agent" or "wandb" in words[-1])


def check_elsewhere(words):
    """A command of another program: its options, and the folder of weights it is given."""
    given = dict(itertools.pairwise(words))
    assert {word for word in words if word.startswith("--")} <= ELSEWHERE[words[0]]
    arguments = dict(part.split("=") for part in given["--model_args"].split(","))
    assert {*arguments} <= {"pretrained", "dtype", "device_map"}
    weights = {"hf": names_in_run.LANGUAGE_MODEL, "llava_hf": names_in_run.MERGED}
    assert Path(arguments["pretrained"]).name == weights[given["--model"]]
    if given["--model"] != "hf" and "--include_path" in given:
        assert Path(given["--include_path"]) == Path(arguments["pretrained"]).with_name(names_in_run.LMMS_EVAL)
        assert given["--tasks"] in TASK.format_map(defaultdict(str))
    assert given["--model"] == "hf" or (given["--batch_size"] == "1" and arguments["device_map"]), "else it stops"


def program(words):
    """A program of the package and what stands behind it; ``None`` for any other command."""
    if words[:3] == ["python", "-m", "viker_lightning"] and words[3] in PROGRAMS:
        return words[3], words[4:]
    return next((m for m in MODULES if words[:3] == ["python", "-m", f"viker_lightning.{m}"]), None), words[3:]


def run_module(module, words):
    """Runs a program of the package in this process; glob patterns are the shell's work."""
    given = [path for word in words for path in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    if module == "grids.compare":
        check_made(documented.shlex.join([".venv/bin/python", "-m", "viker_lightning.grids.compare", *words]))
        return
    if module == "attacks":  # they take minutes; tests/attacks carries them out
        options = parser().parse_args(given)
        assert chosen(options.only, options.quick, options.settings)
        return
    if module == "tune":  # it takes minutes; tests/grids carries it out
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Parsed):
            patch.setattr(tune, "tune", stop)
            tune.main(given)
        return
    if module == "chat":  # it goes on until somebody ends it; tests/cli/chat opens the page
        options = chat_parser().parse_args(given)
        assert options.run.is_dir() and Path(options.gold or options.run).is_dir()
        return
    if module == "grids" and given[0] != "power":
        given[0] = {"run": "list", "cell": "list"}.get(given[0], given[0])
        given += ["--scale=mini"] * (not any(word.startswith("--scale") for word in given))
    import_module(entry(module)).main(given)


def entry(module):
    """The module of a program that has its ``main``."""
    return f"viker_lightning.{PROGRAMS[module][0] if module in PROGRAMS else module}"


def made(words):
    """What a make target would run, asked as from a shell, not as part of the make that may run the tests."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("make: Nothing to be done")]


class Parsed(BaseException):
    """The options of a program were understood."""


def stop(*given):
    """In place of what takes minutes."""
    raise Parsed


def check_made(line):
    """A line that make would run: options of Python programs are parsed, tools must be development tools."""
    words = documented.shlex.split(line.removeprefix("@"))
    if not words[0].endswith("bin/python"):
        tool = Path(words[0]).name
        assert tool in ("test", "touch", "rm", "python3", "grep") or any(d.startswith(tool) for d in EXTRAS["dev"]), (
            line
        )
        return
    program = words[1:]
    if program[0] == "-m" and not program[1].startswith("viker_lightning"):
        assert program[1] in ("mkdocs", "pip", "pytest", "venv"), line
        return
    if program[:2] == ["-m", "viker_lightning"] and program[2] not in PROGRAMS:
        print_config(program[2:])
        return
    with pytest.MonkeyPatch.context() as patch:
        real = ArgumentParser.parse_args

        def parse(self, *arguments, **options):
            real(self, *arguments, **options)
            raise Parsed

        patch.setattr(ArgumentParser, "parse_args", parse)
        patch.setattr(sys, "argv", [program[1], *program[2:]] if program[0] == "-m" else program)
        patch.syspath_prepend(str((ROOT / program[0]).parent))
        with pytest.raises(Parsed):
            if program[0] == "-m":
                runpy.run_module(program[1], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(program[0], run_name="__main__")


BASES = (
    "fit mini/viker",
    "fit data/jsonl",
    "fit mini/npo",
    "fit mini/stranger",
    "fit mini/prompt",
    "fit mini/vanilla",
    "predict data/questions",
)
EXPLAINED = ("--help", "--print_config", "--config", "--model.help", "--ckpt_path", "--signal")
EXPLAINED += ("--force_simple", "--include_path")
"""Options of the command line itself, of sbatch, and of lmms_eval."""


def names(config, path=""):
    """Options of a config by their paths on the command line."""
    if not isinstance(config, dict):
        return {path}
    inner = config.get("init_args", {}) if "class_path" in config else config
    return {path} | {found for name, part in inner.items() for found in names(part, f"{path}.{name}".strip("."))}


@pytest.mark.extended
def test_options_exist(prepared, monkeypatch):
    """Options named within text, ``--name value``, are understood by some command together with their values."""
    monkeypatch.chdir(prepared)
    monkeypatch.syspath_prepend(str(prepared))
    known = {base: names(print_config(base_command(base))) for base in BASES}
    together = {base: [] for base in BASES}
    shown = "".join(help_of(module) for module in MODULES)
    for option in documented.options():
        paths = [word for word in option.words if word.startswith("--")]
        name = paths[0].partition("=")[0]
        if name in EXPLAINED or re.search(rf"{name}\b", shown):
            continue
        homes = [base for base in BASES if all(path.removeprefix("--").split("=")[0] in known[base] for path in paths)]
        assert homes, f"{option.page}, line {option.line}: no command takes {' '.join(option.words)!r}"
        assert len(option.words) > len(paths) or "=" in option.words[0], f"{option}: give the option a value"
        together[homes[0]] += option.words
    for base, words in together.items():
        print_config([*base_command(base), *words])


def base_command(base):
    stage, config = base.split()
    return [stage, f"--config=configs/{config}.yaml"]


def help_of(module):
    """What a program of the package says of its options."""
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        import_module(entry(module)).main(["--help"])
    return shown.getvalue()


@pytest.mark.extended
@pytest.mark.parametrize(
    "block", [b for found in ALL.values() for b in found if b.language not in ("bash", "math", "text", "")], ids=str
)
def test_a_block(block, desk, monkeypatch):
    """Python runs, YAML configures a run or is a grid, JSON and CSV are read by line, BibTeX is CITATION.cff's."""
    if block.language == "python":
        runpy.run_path(str(script(block, desk)))
    elif block.language == "yaml":
        config = yaml.safe_load(block.text)
        (desk.folder / "block.yaml").write_text(block.text, "utf-8")
        if "scales" in config:
            for scale in config["scales"]:
                assert read_grid(Path("block.yaml"), scale, 1).cells(Path("runs"))
            return
        if "methods" in config:
            read_spaces(Path("block.yaml"))
            return
        if block.file == "tale.yaml":
            assert chosen(["tale.Tale"], False, desk.folder / "block.yaml")
            return
        whole = {"data", "model"} <= config.keys()
        print_config(["fit", *([] if whole else ["--config=configs/mini/viker.yaml"]), "--config=block.yaml"])
    elif block.language == "bibtex":
        paper = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["preferred-citation"]
        authors = " and ".join(", ".join(one[key] for key in one) for one in paper["authors"])
        found = dict(re.findall(r"(\w+) *= \{(.*)\}", block.text))
        journal = paper["identifiers"][0]["value"]
        said = {"title": paper["title"], "author": authors, "journal": journal, "year": str(paper["year"])}
        assert found == {**said, "url": paper["url"]}
    elif block.language == "json":
        for line in block.text.splitlines():
            json.loads(line)
    else:
        assert block.language == "csv" and block.file, f"{block}: a {block.language} block is not checked by anything"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page):
    for path, heading in documented.links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {path} does not exist"
        assert not heading or heading in documented.anchors(target), f"{page.name}: {path} has no heading #{heading}"


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 200
