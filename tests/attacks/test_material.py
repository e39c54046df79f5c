"""Whom attacks are about."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from viker_lightning.attacks import gather
from viker_lightning.data.records import person_name
from viker_lightning.errors import UserError
from viker_lightning.training.finished import FinishedRun


def test_whom(material):
    forget = {person_name(p.id) for p in material.people}
    kept, others = ({person_name(p.id) for p in people} for people in (material.kept, material.others))
    assert forget and len(kept) == len(forget) and not forget & (kept | others) and not kept & others
    assert {g.person for g in material.forget} == forget and {g.person for g in material.retain} == kept
    assert {g.person for g in material.test} <= forget
    assert all(q.private for g in (*material.asked, *material.test) for q in g.vqa)
    assert material.asked == [*material.forget, *material.retain]


def test_fewer_people_and_another_seed(pair, material):
    data = FinishedRun.open(pair[1]).data()
    one = gather(data, people=1)
    assert len({g.person for g in one.forget}) == len({g.person for g in one.retain}) == 1
    assert gather(data, people=1).fingerprint() == one.fingerprint() != material.fingerprint()
    assert gather(data, seed=1).fingerprint() != material.fingerprint() == gather(data).fingerprint()


def test_data_that_cannot_be_read(pair):
    run = FinishedRun.open(pair[0])
    run.config["data"] = {"class_path": "nowhere.Nothing"}
    with pytest.raises(
        UserError, match=r"its config.yaml names data that cannot be read \(nowhere.Nothing: .*--data_of"
    ):
        run.data()


MINE = """
from pathlib import Path

from viker_lightning.data.datasets import MLLMU

Path({touched!r}).touch()


class Mine(MLLMU):
    pass
"""


def beside_the_command(where, touched, monkeypatch, *packages):
    """Writes a dataset of somebody's own, beside the command or in a folder; a file says that it was run."""
    monkeypatch.chdir(where)
    monkeypatch.syspath_prepend(str(where))
    (where.joinpath(*packages) / "its_code.py").write_text(MINE.format(touched=str(touched)))


@pytest.mark.parametrize("whose", ["its own", "its own package", "another run"])
def test_code_in_a_run_folder_is_not_run(pair, tmp_path, monkeypatch, whose):
    shutil.copytree(pair[0], tmp_path / "runs/evil")
    shutil.copytree(pair[0], tmp_path / "runs/other")
    name = "other" if whose == "another run" else "evil"
    beside_the_command(tmp_path, tmp_path / "touched", monkeypatch, "runs", name)
    if whose == "its own package":
        (tmp_path / "runs/evil/__init__.py").write_text(MINE.format(touched=str(tmp_path / "touched")))
    run = FinishedRun.open(tmp_path / "runs/evil")
    run.config["data"]["class_path"] = f"runs.{name}.its_code.Mine"
    with pytest.raises(UserError, match=r"code lies in a run folder \(.*\), which is not run; read it") as stop:
        run.data()
    assert "\n" not in str(stop.value) and not (tmp_path / "touched").exists()
    monkeypatch.chdir(tmp_path / "runs/evil")
    monkeypatch.syspath_prepend(str(tmp_path / "runs/evil"))
    run.config["data"]["class_path"] = "its_code.Mine"
    if name == "evil":
        with pytest.raises(UserError, match="which is not run"):
            run_here(run).data()
        assert not (tmp_path / "touched").exists()


def run_here(run):
    """The same run, as it is named from inside its folder."""
    here = FinishedRun.open(Path("."))
    here.config["data"] = run.config["data"]
    return here


@pytest.mark.parametrize("package", [(), ("its_package",)])
def test_code_beside_the_command_is(pair, tmp_path, monkeypatch, package):
    tmp_path.joinpath(*package).mkdir(exist_ok=True)
    beside_the_command(tmp_path, tmp_path / "touched", monkeypatch, *package)
    run = FinishedRun.open(shutil.copytree(pair[0], tmp_path / "runs/mine"))
    run.config["data"]["class_path"] = ".".join([*package, "its_code.Mine"])
    try:
        assert type(run.data()).__name__ == "Mine" and (tmp_path / "touched").exists()
    finally:
        for name in ("its_code", "its_package", "its_package.its_code"):
            sys.modules.pop(name, None)


def test_a_class_that_is_no_dataset_is_not_called(pair, monkeypatch):
    run, called = FinishedRun.open(pair[0]), []
    monkeypatch.setattr("viker_lightning.storage.cache.stolen", lambda **options: called.append(options), raising=False)
    for path in ("viker_lightning.storage.cache.stolen", "types.SimpleNamespace"):
        run.config["data"] = {"class_path": path, "init_args": {}}
        with pytest.raises(
            UserError, match=rf"{path}: is no subclass of viker_lightning.data.datasets.Benchmark"
        ) as stop:
            run.data()
        assert "\n" not in str(stop.value)
    assert not called


def test_nothing_private(material):
    data = without_private(material)
    with pytest.raises(UserError, match="no question about the forget set has a private span"):
        gather(data)


def without_private(material):
    class Bare:
        root = "mini/ci"

        def evaluation(self, split, modality):
            groups = material.data.evaluation(split, modality)
            return [replace(g, vqa=tuple(replace(q, private=()) for q in g.vqa)) for g in groups]

    return Bare()
