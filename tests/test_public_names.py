"""What ``from viker_lightning import ...`` has, and that nothing is loaded for it before."""

import subprocess
import sys
from importlib import import_module

import pytest

import viker_lightning


def test_every_name_is_that_of_its_room():
    for room, names in viker_lightning.ROOMS.items():
        for name in names:
            assert getattr(viker_lightning, name) is getattr(import_module(f"viker_lightning.{room}"), name)
            assert name in dir(viker_lightning)


def test_other_names_are_none():
    with pytest.raises(AttributeError, match="module 'viker_lightning' has no attribute 'NoSuch'"):
        viker_lightning.NoSuch  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'NoSuch'"):
        from viker_lightning import NoSuch  # noqa: F401


def test_a_file_beside_the_command_stands_for_no_library(tmp_path):
    for name in ("typing", "pathlib", "urllib", "commands"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('it was run')")
    command = [sys.executable, "-m", "viker_lightning", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"viker-lightning {viker_lightning.__version__}\n", done.stderr


def test_nothing_is_loaded_before():
    code = "import sys, viker_lightning; assert 'torch' not in sys.modules; viker_lightning.Picture"
    subprocess.run([sys.executable, "-c", code], check=True)
