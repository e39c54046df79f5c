"""Runs that several test files read, made by the first test that needs them."""

import os

import pytest
from filelock import FileLock

from support.commands import ROOT, SHORT, run


def made_once(tmp_path_factory, name, make):
    """A folder of the session, made by whichever xdist worker wants it first while the others wait.

    Args:
        tmp_path_factory: pytest's; workers have folders of their own in that of the session.
        name: of the folder.
        make: writes it.

    Returns:
        The folder; read it only.
    """
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    folder, done = session / name, session / f"{name}.done"
    with FileLock(session / f"{name}.lock"):
        if not done.exists():
            make(folder)
            done.touch()
    return folder


def viker_run(folder, vanilla):
    """A short run of the shipped config."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        run("fit", "mini/viker", folder, vanilla, *SHORT)
