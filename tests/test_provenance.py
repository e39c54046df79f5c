"""The commit that a run notes."""

import subprocess

from viker_lightning.callbacks.provenance import git_commit


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
