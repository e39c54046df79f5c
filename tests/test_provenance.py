"""What a run notes of itself: the commit, and memory on GPUs."""

import json
import subprocess
from types import SimpleNamespace

import pytest
import torch

from viker_lightning.callbacks.provenance import Provenance, git_commit


def test_a_commit_with_changes_is_marked(tmp_path, monkeypatch):
    """Results that lie beside the code, as tables do, change nothing of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() is None
    (tmp_path / "code.py").write_text("1")
    who = ["-c", "user.name=Ada Example", "-c", "user.email=ada@example.org"]
    for command in (["init", "-q"], ["add", "code.py"], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True)
    commit = git_commit()
    assert len(commit) == 40
    (tmp_path / "results").write_text("2")
    assert git_commit() == commit
    (tmp_path / "code.py").write_text("2")
    assert git_commit() == commit + "+"


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
