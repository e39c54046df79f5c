"""An unlearned run and its gold, both of two steps on mini/ci, read only; who attacks copies them."""

import functools
import shutil

import pytest

from support.commands import ROOT, SHORT, csv_only, run
from support.shared import made_once
from viker_lightning.attacks import gather
from viker_lightning.attacks.subject import Subject
from viker_lightning.cli.main import main
from viker_lightning.evaluation import predict
from viker_lightning.training.finished import FinishedRun


def _gold(folder, base):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        options = [f"--model.base={base}", "--trainer.max_steps=2", "--evaluation.max_new_tokens=3"]
        main(["fit", "--config=configs/mini/gold.yaml", *csv_only(folder), *SHORT[:1], "--data.max_people=2", *options])


def _run(folder, base):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        run("fit", "mini/npo", folder, base, *SHORT, "--data.max_people=2")


@pytest.fixture(autouse=True)
def short_answers(monkeypatch):
    """Models that nobody has trained would never stop talking."""
    monkeypatch.setattr("viker_lightning.attacks.base.predict", functools.partial(predict, max_new_tokens=4))


@pytest.fixture(scope="session")
def pair(base_folder, tmp_path_factory):
    """Folders of the run and of gold."""
    made = made_once(tmp_path_factory, "attacked", lambda folder: _run(folder / "run", base_folder))
    gold = made_once(tmp_path_factory, "attacked-gold", lambda folder: _gold(folder / "gold", base_folder))
    return made / "run", gold / "gold"


@pytest.fixture
def copies(pair, tmp_path):
    """The same, to write into."""
    return [shutil.copytree(one, tmp_path / one.name) for one in pair]


@pytest.fixture(scope="session")
def material(pair):
    """Whom attacks are about; read only."""
    return gather(FinishedRun.open(pair[1]).data())


@pytest.fixture(scope="session")
def one_person(data):
    """The same of one forgotten and one retained person, for what asks much."""
    return gather(data, people=1)


@pytest.fixture
def subject(base_folder, tmp_path):
    """A model that is attacked: untrained."""
    return Subject("run", str(base_folder), tmp_path)
