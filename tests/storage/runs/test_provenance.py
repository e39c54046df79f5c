"""What a run notes of itself: the commit, and memory on GPUs."""

import ast
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from viker_lightning import look_here_last
from viker_lightning.cli.main import main
from viker_lightning.methods import NPO
from viker_lightning.storage import sources
from viker_lightning.storage.runs import set_aside
from viker_lightning.storage.runs.provenance import earlier_sources, git_commit, keep_source
from viker_lightning.storage.sources import code_fingerprint, fingerprint, source_files
from viker_lightning.training.callbacks import Provenance


def test_a_commit_with_changes_is_marked(tmp_path, monkeypatch):
    """New files, too, but for those that git ignores and those of runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() is None
    (tmp_path / "code.py").write_text("1")
    (tmp_path / ".gitignore").write_text("*.log\n")
    who = ["-c", "user.name=Ada Example", "-c", "user.email=ada@example.org"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True)
    commit = git_commit()
    assert len(commit) == 40
    for name in ("some.log", "runs/this/config.yaml", "runs/that/provenance.json", "runs/that/model/config.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("2")
    assert git_commit(Path("runs/this")) == commit
    assert git_commit() == commit + "+"
    (tmp_path / "méthode.py").write_text("3")
    assert git_commit(Path("runs/this")) == commit + "+"
    monkeypatch.chdir(tmp_path / "runs")
    assert git_commit(Path("this")) == commit + "+"
    (tmp_path / "méthode.py").unlink()
    assert git_commit(Path("this")) == commit
    (tmp_path / "code.py").write_text("2")
    assert git_commit(Path("this")) == commit + "+"


LOSS = """from viker_lightning.methods import GradientAscent
from losses.own import scale


class Mine(GradientAscent):
    pass
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A method in a file of one's own, which imports from beside it, and files that are none of its business."""
    folder = tmp_path / "beside"
    (folder / "losses/deep").mkdir(parents=True)
    (folder / "mine.py").write_text(LOSS)
    (folder / "losses/__init__.py").write_text("")
    (folder / "losses/own.py").write_text("import torch\nfrom . import deep\nfrom .deep.far import y\nscale = 1\n")
    (folder / "losses/deep/far.py").write_text("y = 2\n")
    for other in ("other.py", "losses/other.py"):
        (folder / other).write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    yield folder
    for name in ("mine", "losses", "losses.own", "losses.deep", "losses.deep.far"):
        sys.modules.pop(name, None)


def test_the_files_of_a_class(mine):
    files = source_files("mine.Mine")
    assert list(files) == ["losses/__init__.py", "losses/deep/far.py", "losses/own.py", "mine.py"]
    assert "mine" not in sys.modules, "nothing is imported"
    seen = {fingerprint(files)}
    for name in ("mine.py", "losses/deep/far.py"):
        (mine / name).write_text((mine / name).read_text() + "another = 1\n")
        seen.add(fingerprint(source_files("mine.Mine")))
    assert len(seen) == 3
    (mine / "other.py").write_text("1")
    assert fingerprint(source_files("mine.Mine")) in seen
    assert list(source_files("losses.own.Any")) == ["losses/__init__.py", "losses/deep/far.py", "losses/own.py"]


@pytest.mark.parametrize(
    "name",
    ["viker_lightning.methods.ViKeR", "ViKeR", "nowhere.A", "json.JSONDecoder", "sys.path", "0.5", "a..b", "../x.y"],
)
def test_a_class_that_is_nobody_s(name):
    assert source_files(name) == {}


def test_what_a_run_does_not_use_leaves_its_fingerprint_alone(tmp_path, monkeypatch):
    """Its method's file, those that imports and what all runs share count; other methods and what shows runs do not."""
    package = tmp_path / sources.PACKAGE.name
    shutil.copytree(sources.PACKAGE, package, ignore=shutil.ignore_patterns("*.safetensors"))
    monkeypatch.setattr(sources, "PACKAGE", package)
    runs = {"stranger": frozenset({"Stranger", "Unlearn"}), "npo": frozenset({"NPO"}), "gold": frozenset({"Finetune"})}

    def seen():
        sources.code_fingerprint.cache_clear()
        return {name: code_fingerprint(classes) for name, classes in runs.items()} | {"any": code_fingerprint()}

    now = seen()

    def changed(*files, added="\nother = 1\n"):
        for path in (package / file for file in files):
            path.write_text((path.read_text() if path.exists() else "") + added)
        before = dict(now)
        now.update(seen())
        return {name for name in now if now[name] != before[name]}

    assert changed("methods/later.py") == {"any"}
    assert changed("methods/__init__.py") == {"any"}
    assert changed("methods/npo.py") == {"npo", "any"}
    assert changed("methods/hold.py") == {"stranger", "any"}
    rooms = sorted(folder.name for folder in package.iterdir() if folder.is_dir() and folder.name != "__pycache__")
    for room in {*rooms} - {"methods"}:
        file = next(file for file in sorted((package / room).glob("*.py")) if file.name != "__init__.py")
        assert changed(file) == ({*runs, "any"} if room in sources.MAKE_RUNS else set()), file
    assert changed("methods/base.py") == {*runs, "any"}
    assert not changed("cli/chat/desk.py", "cli/check/check.py", "attacks/kinds/lens.py", "storage/runs/read.py")
    words = '# why\n"""What it is."""\n\n\n'
    assert not changed("methods/base.py", "training/step.py", "models/mllm.py", added=words), "these change no run"
    sources.code_fingerprint.cache_clear()


def test_threads_may_look_at_sources_at_once(mine, monkeypatch):
    """As those that run cells side by side do: Python 3.11 fails at times where two of them parse."""
    parse, within, most = ast.parse, [], []

    def noted(text):
        within.append(text)
        most.append(len(within))
        time.sleep(0.01)
        within.pop()
        return parse(text)

    with ThreadPoolExecutor(4) as pool, monkeypatch.context() as patch:
        patch.setattr(ast, "parse", noted)
        found = set(pool.map(lambda _: tuple(source_files("mine.Mine")), range(4)))
    assert found == {("losses/__init__.py", "losses/deep/far.py", "losses/own.py", "mine.py")}
    assert max(most) == 1 < len(most)


def test_of_what_is_installed_the_file_alone_counts():
    assert list(source_files("lightning.pytorch.loggers.CSVLogger")) == [
        "lightning/__init__.py", "lightning/pytorch/__init__.py", "lightning/pytorch/loggers/__init__.py"
    ]  # fmt: skip


def test_a_method_s_files_are_kept_with_the_run(mine, tmp_path):
    """Without secrets."""
    (mine / "losses/own.py").write_text("scale = 'hf_" + "QwErTyUiOpAsDfGhJk'\napi_key = 'plain words'\n")
    method = import_module("mine").Mine()
    told = keep_source([method], tmp_path / "run")
    assert told == {"module": "mine", "file": str(mine / "mine.py"), "hash": fingerprint(source_files("mine.Mine"))}
    assert (tmp_path / "run/method/mine.py").read_text() == LOSS
    assert (tmp_path / "run/method/losses/own.py").read_text() == "scale = '***'\napi_key = ***\n"
    told = keep_source([NPO()], tmp_path / "other")
    assert told["module"] == "viker_lightning.methods.npo" and told["hash"] is None
    assert not (tmp_path / "other").exists()


def test_a_method_s_files_move_aside_with_their_run(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "method/mine.py").write_text(LOSS)
    set_aside(tmp_path)
    assert (tmp_path / "earlier-1/method/mine.py").is_file() and not (tmp_path / "method").exists()


@pytest.mark.parametrize("content", ["[" * 99_999, "[]", "{", "\xff"])
def test_what_is_no_record_is_of_no_run(tmp_path, content):
    (tmp_path / "provenance.json").write_text(content, "latin-1")
    assert earlier_sources(tmp_path / "checkpoints/last.ckpt", {"hash": "a"}) == []


def test_a_run_that_goes_on_with_another_loss_says_so(tmp_path, caplog):
    (tmp_path / "checkpoints").mkdir()
    checkpoint = tmp_path / "checkpoints/last.ckpt"
    record = {"code": code_fingerprint(), "method_source": {"hash": "a"}, "earlier_sources": []}
    (tmp_path / "provenance.json").write_text(json.dumps(record))
    assert earlier_sources(None, {"hash": "b"}) == []
    assert earlier_sources(checkpoint, {"hash": "a"}) == [] and not caplog.messages
    then = earlier_sources(checkpoint, {"module": "mine", "hash": "b"})
    assert then == [{"code": code_fingerprint(), "method": "a"}]
    (said,) = caplog.messages
    assert said.startswith("the source of mine has changed") and "--ckpt_path" in said
    record |= {"code": "other", "method_source": None, "earlier_sources": then}
    (tmp_path / "provenance.json").write_text(json.dumps(record))
    assert earlier_sources(checkpoint, None) == [*then, {"code": "other", "method": None}]
    assert "this program has changed" in caplog.messages[-1]
    (tmp_path / "provenance.json").write_text("{")
    assert earlier_sources(checkpoint, {"hash": "b"}) == []


def test_a_file_beside_the_command_is_found_by_either_command(tmp_path, monkeypatch):
    """``python -m`` looks in the working folder by itself, the console script does not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of_mine_beside.py").write_text(LOSS.replace("from losses.own import scale\n", ""))
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(tmp_path))])
    options = ["--model=Unlearn", "--model.vanilla=x", "--model.method=of_mine_beside.Mine", "--data=MLLMU"]
    with pytest.raises(SystemExit, match=r"^error: --nonsense: no such option"):
        main(["fit", *options, "--nonsense"])
    assert "of_mine_beside" in sys.modules and sys.path[-1] == str(tmp_path), "behind all that is installed"
    monkeypatch.setattr("sys.path", sys.path[:-1])
    for name in ("provenance.json", "config.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "adapter").mkdir()
    monkeypatch.chdir(tmp_path / "adapter")
    look_here_last()
    assert not {"", str(tmp_path / "adapter")} & {*sys.path}, "a run folder may be somebody else's"


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_the_peak_of_gpu_memory_is_added(tmp_path, monkeypatch, kind):
    (tmp_path / "provenance.json").write_text('{"seed": 1}')
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    tensor = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda value, device: tensor(value))
    strategy = SimpleNamespace(root_device=torch.device(kind))
    Provenance().on_fit_end(
        SimpleNamespace(strategy=strategy, world_size=1, is_global_zero=True, default_root_dir=str(tmp_path)), None
    )
    added = {"peak_gpu_memory_bytes": 7} if kind == "cuda" else {}
    assert json.loads((tmp_path / "provenance.json").read_text()) == {"seed": 1} | added
