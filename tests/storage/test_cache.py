"""What is built once: checked when it is used, built again when it is damaged, removed on demand."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from viker_lightning.cli import clean_cache
from viker_lightning.data.embedded.benchmark_folder import EmbeddedBenchmark
from viker_lightning.errors import UserError
from viker_lightning.models.vision import FrozenFeatures
from viker_lightning.storage import cache, files
from viker_lightning.storage.cache import CHECKSUMS, built
from viker_lightning.storage.files import draft, remove_drafts


def write(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "inner").mkdir()
    (folder / "inner/weights.bin").write_bytes(bytes(1000))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    return built(tmp_path / "thing", "a thing", write)


DAMAGE = {
    "one bit": lambda f: flip(f / "inner/weights.bin"),
    "cut": lambda f: os.truncate(f / "inner/weights.bin", 10),
    "missing": lambda f: (f / "inner/weights.bin").unlink(),
    "no config": lambda f: (f / "config.json").unlink(),
    "checksums": lambda f: (f / CHECKSUMS).write_bytes(b"\xff\xfe"),
    "no checksums left": lambda f: (flip(f / "inner/weights.bin"), (f / CHECKSUMS).write_bytes(b"")),
    "checksums of some": lambda f: (flip(f / "inner/weights.bin"), os.truncate(f / CHECKSUMS, 64 + 2 + 12)),
    "half a checksum": lambda f: os.truncate(f / CHECKSUMS, 64 + 2 + 12 + 20),
    "another file": lambda f: (f / "inner/other.json").write_text("{}"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_folder_is_built_again(folder, capsys, kind):
    assert built(folder, "a thing", pytest.fail) == folder
    DAMAGE[kind](folder)
    capsys.readouterr()
    built(folder, "a thing", write)
    assert (folder / "inner/weights.bin").read_bytes() == bytes(1000) and (folder / "config.json").is_file()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and said[0].startswith(f"{folder} is damaged (") and said[0].endswith("and is made again")
    assert sorted(path.name for path in folder.parent.iterdir()) == ["thing", "thing.lock"]
    assert built(folder, "a thing", pytest.fail) == folder


def test_what_a_file_browser_leaves_is_no_damage(folder):
    (folder / "inner/.DS_Store").touch()
    assert built(folder, "a thing", pytest.fail) == folder


def test_what_an_earlier_version_built_is_taken_on(folder, capsys):
    """Without checksums, only what ends too soon can be told; they are there the next time."""
    (folder / CHECKSUMS).unlink()
    assert built(folder, "a thing", pytest.fail) == folder
    flip(folder / "inner/weights.bin")
    built(folder, "a thing", write)
    assert "inner/weights.bin is not what was written" in capsys.readouterr().out
    (folder / CHECKSUMS).unlink()
    (folder / "config.json").write_text("{")
    built(folder, "a thing", write)
    assert "config.json: " in capsys.readouterr().out and (folder / "config.json").read_text() == "{}"


def test_of_very_large_files_only_the_end_is_looked_at(folder, monkeypatch):
    monkeypatch.setattr(cache, "LARGEST", 1)
    monkeypatch.setattr(cache.hashlib, "file_digest", pytest.fail)
    (folder / CHECKSUMS).write_text("")
    assert built(folder, "a thing", pytest.fail) == folder
    (folder / "config.json").write_text("{{")
    assert cache.damage(folder, "config.json").startswith("config.json: ")


def test_a_cache_that_may_only_be_read_is_used(folder, monkeypatch):
    monkeypatch.setattr(cache, "FileLock", pytest.fail)
    assert built(folder, "a thing", pytest.fail) == folder


def test_a_damaged_benchmark_is_written_again(tmp_path, capsys):
    def build(root, size, seed):
        (root / "data").mkdir()
        (root / "data/file").write_bytes(bytes(1000))

    small = EmbeddedBenchmark("1", "{size}", {"ci": None}, build, pytest.fail)
    root = small.write(tmp_path / "ci", "ci")
    content = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for damaged, file, why in (
        (flip, "data/file", "data/file is not what was written"),
        (lambda label: os.truncate(label, 9), "benchmark.json", "benchmark.json is not what was written"),
        (Path.unlink, "benchmark.json", "benchmark.json is missing"),
    ):
        damaged(root / file)
        small.write(root, "ci")
        assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == content
        assert capsys.readouterr().out == f"{root} is damaged ({why}) and is made again\n"
    (root / "notes.txt").write_text("mine")
    with pytest.raises(
        UserError, match=rf"^{root}: notes.txt is no file of the benchmark, which is to be made again; "
    ):
        small.write(root, "ci")
    (root / "notes.txt").unlink()
    replace(small, build=pytest.fail).write(root, "ci")


def hold(folder, ready):
    with draft(folder, "held") as new:
        (new / "half").write_text("half")
        ready.put(new.name)
        signal.pause()


def test_only_what_killed_processes_left_is_removed(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.SimpleQueue()
    builder = context.Process(target=hold, args=(tmp_path, ready))
    builder.start()
    name = ready.get()
    assert remove_drafts(tmp_path) == [] and (tmp_path / name / "half").is_file(), "its process lives"
    os.kill(builder.pid, signal.SIGKILL)
    builder.join()
    assert remove_drafts(tmp_path, "other") == []
    assert remove_drafts(tmp_path, "held") == [tmp_path / name] and not list(tmp_path.iterdir())


def test_the_next_build_removes_what_killed_ones_left(tmp_path):
    for name in (".thing-0123456789ab.tmp", ".thing-mine.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").touch()
    built(tmp_path / "thing", "a thing", write)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".thing-mine.tmp", "thing", "thing.lock"]


def test_a_draft_that_is_cleared_away_at_once_is_made_again(tmp_path, monkeypatch):
    """Another process removes drafts between the two calls that make one and lock it."""
    cleared, plain = [], os.open

    def late(path, flags):
        if not cleared:
            cleared.append(path)
            os.rmdir(path)
            os.rmdir(tmp_path / "cache")
        return plain(path, flags)

    monkeypatch.setattr(files.os, "open", late)
    with draft(tmp_path / "cache", "thing") as new:
        assert new.is_dir() and cleared and new != cleared[0]


def test_features_stay_for_as_long_as_a_run_uses_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path))
    folder, other = tmp_path / "features" / ("0" * 40), tmp_path / "features" / ("1" * 40)
    ours, second = FrozenFeatures("disk", folder), FrozenFeatures("disk", folder)
    left = folder / "ab/.abc-0123456789ab.tmp"
    left.mkdir(parents=True)
    with draft(other / "ab", "abc") as new:
        clean_cache.main([])
        assert new.is_dir() and folder.is_dir() and not left.exists()
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [f"kept {path}: a run is at work on it" for path in (folder, other)]
    del ours
    clean_cache.main([])
    assert not other.exists() and folder.is_dir(), "one of two has ended"
    del second
    clean_cache.main([])
    assert not folder.exists()
    assert FrozenFeatures("disk", folder).folder.is_dir()


def test_a_cache_that_cannot_be_locked_or_written_is_used(tmp_path):
    (tmp_path / "file").touch()
    assert FrozenFeatures("disk", tmp_path / "file/features").keep == "disk"


def test_clean_cache_removes_what_is_ours_and_idle(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path))
    noted = ["models/smol-2", "benchmarks/mini-ci-1", "benchmarks/mini-default-2-seed-11"]
    ours = ["models/mini-0123456789ab", "models/mini-tower-0123456789ab", "models/wider-0123456789ab"]
    ours += ["vanilla/0123456789ab", f"ideal/{'0' * 32}", f"features/{'0' * 40}", *noted]
    theirs = ["models/llava", "models/mini-mymodel", "models/smol-7", "models/.mini-mine.tmp", "vanilla/notes"]
    theirs += ["work/mini-1", "ideal/thoughts", "benchmarks/mini-survey", "benchmarks/mini-survey-2"]
    busy = ["vanilla/ba9876543210", f"ideal/{'1' * 32}"]
    for name in ours + theirs + busy:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / (CHECKSUMS if name in noted else "file")).write_bytes(bytes(1000))
    with (
        FileLock(tmp_path / f"{busy[0]}.lock"),
        FileLock(tmp_path / busy[1] / "build-0-of-1.lock"),
        draft(tmp_path / "models", "mini-x") as live,
    ):
        clean_cache.main([])
        assert live.is_dir()
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"9,000 bytes removed from {tmp_path}"
    assert [f"removed {tmp_path / name}: 1,000 bytes" in said for name in ours] == [True] * len(ours)
    for name in busy:
        assert f"kept {tmp_path / name}: a run is at work on it" in said
    assert all((tmp_path / name / "file").is_file() for name in theirs + busy)
    assert not any((tmp_path / name).exists() for name in ours)


def test_a_cache_that_cannot_be_cleaned_is_one_line(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", f"{folder}/file")

    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path))
    (kept := tmp_path / "vanilla/0123456789ab").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(clean_cache.shutil, "rmtree", refuse)
        with pytest.raises(SystemExit) as stop:
            clean_cache.main([])
    said = f"error: {kept}/file: cannot be removed (Permission denied); let it, and the folder it is in, be written to"
    assert stop.value.code == said and kept.is_dir()
    (tmp_path / "file").touch()
    monkeypatch.delenv("VIKER_LIGHTNING_CACHE")
    for name, home in ((f"{tmp_path}/file/cache", ""), ("/proc/.cache/viker-lightning", "/proc")):
        monkeypatch.setenv(*(("HOME", home) if home else ("VIKER_LIGHTNING_CACHE", name)))
        with pytest.raises(SystemExit, match=rf"^error: cache folder {name}: .*; set VIKER_LIGHTNING_CACHE"):
            clean_cache.main([])
        monkeypatch.delenv("VIKER_LIGHTNING_CACHE", raising=False)
