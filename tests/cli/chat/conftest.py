"""A finished run whose models nobody trained but which all say something else, read only; and its desk."""

import json
import shutil
import threading
import time

import pytest

from support.browser import chromium  # noqa: F401 - a fixture
from support.shared import made_once
from support.weights import random_adapter, random_vanilla
from viker_lightning.cli.chat.__main__ import QUIET
from viker_lightning.cli.chat.address import HERE, bind
from viker_lightning.cli.chat.album import album
from viker_lightning.cli.chat.desk import Desk
from viker_lightning.cli.chat.speakers import load_speakers
from viker_lightning.models import folder_fingerprint
from viker_lightning.training.finished import FinishedRun


@pytest.fixture(scope="session")
def folders(finished, base_folder, tmp_path_factory):
    """A folder with ``run``, ``vanilla`` and ``gold``."""

    def make(folder):
        random_vanilla(base_folder, folder / "vanilla", seed=0, projector=0.3)
        random_vanilla(base_folder, folder / "gold", seed=2, projector=0.3)
        shutil.copytree(finished, folder / "run")
        shutil.rmtree(folder / "run/adapter")
        random_adapter(folder / "vanilla", folder / "run/adapter", std=0.1)
        config = (folder / "run/config.yaml").read_text()
        assert "max_people: 1" in config
        (folder / "run/config.yaml").write_text(config.replace("max_people: 1", "max_people: 2"))
        file = folder / "run/provenance.json"
        began = {"base_weights": str(folder / "vanilla"), "base_fingerprint": folder_fingerprint(folder / "vanilla")}
        file.write_text(json.dumps(json.loads(file.read_text()) | began))

    return made_once(tmp_path_factory, "chat", make)


@pytest.fixture(scope="session")
def speakers(folders):
    return load_speakers(FinishedRun.open(folders / "run"), gold=str(folders / "gold"))


@pytest.fixture(scope="session")
def photos(folders):
    return album(FinishedRun.open(folders / "run").data())


@pytest.fixture(scope="session")
def desk(speakers, photos):
    return Desk(speakers, photos)


@pytest.fixture(scope="package")
def served(desk, tmp_path_factory):
    """Address of the page, and the folder of uploads."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    uploads = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (QUIET | {"GRADIO_TEMP_DIR": str(uploads)}).items():
            patch.setenv(name, value)
        from viker_lightning.cli.chat.gradio_page import page, server

        with bind(0) as bound:
            serving = server(page(desk, "Ask <b>it"))
            thread = threading.Thread(target=serving.run, kwargs={"sockets": [bound]}, daemon=True)
            thread.start()
            while not serving.started:
                time.sleep(0.01)
            yield f"http://{HERE}:{bound.getsockname()[1]}", uploads
            serving.should_exit = serving.force_exit = True  # it does not wait for what Gradio still has open
            thread.join(10)
