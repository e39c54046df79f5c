"""Tiny models and the smallest embedded benchmark; every cache is a temporary folder."""

import os
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: more threads would only wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from lightning.pytorch import seed_everything
from transformers import CLIPVisionConfig, CLIPVisionModel

os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

CI = "mini/ci"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """A cache folder whose vision tower is there already, untrained, so that no test waits for it."""
    from viker_lightning.cache import cache_folder
    from viker_lightning.embedded import vision_tower

    folder = tmp_path_factory.mktemp("cache")
    os.environ["VIKER_LIGHTNING_CACHE"] = str(folder)
    torch.manual_seed(0)
    tower = CLIPVisionModel(CLIPVisionConfig(**vision_tower.CONFIG))
    tower.save_pretrained(cache_folder("models", f"mini-tower-{vision_tower.fingerprint()}"))
    return folder


@pytest.fixture(scope="session")
def data(cache):
    """The ci benchmark, set up for unlearning; read only."""
    from viker_lightning.datasets.mllmu import MLLMU

    module = MLLMU(CI, batch_size=8, questions_per_image=4)
    module.prepare_data()
    module.setup()
    return module


@pytest.fixture(scope="session")
def base_folder(data):
    """The untrained embedded model of the ci benchmark."""
    from viker_lightning.embedded.llava import embedded_model
    from viker_lightning.methods.idk import REFUSALS

    return embedded_model([*data.texts(), *REFUSALS])


@pytest.fixture
def mllm(base_folder):
    """An embedded model with random weights, large enough to make differences visible, and LoRA that is not zero."""
    from viker_lightning.models import MLLM, Lora

    seed_everything(0, verbose=False)
    model = MLLM.load(base_folder)
    with torch.no_grad():
        for p in model.base.model.language_model.parameters():
            if p.ndim == 2:
                p.normal_(std=0.08)
        for p in model.base.model.multi_modal_projector.parameters():
            p.normal_(std=0.3)
    model.adapt(Lora())
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.05)
    return model


@pytest.fixture
def groups(data):
    """Three groups of different people, with 4, 3 and 1 questions."""
    from viker_lightning.data.records import ImageGroup

    people = data.people()[:3]
    return [
        ImageGroup(p.id, p.images[i], vqa=p.vqa[i * 5 : i * 5 + n])
        for i, (p, n) in enumerate(zip(people, (4, 3, 1), strict=True))
    ]


@pytest.fixture(scope="session")
def whole(base_folder, tmp_path_factory):
    """Runs of tests/killing.py that nobody stopped, by method."""
    sys.path.insert(0, str(Path(__file__).parent))
    from killing import command, results, run

    done = {}

    def of(method):
        if method not in done:
            folder = tmp_path_factory.mktemp("whole")
            assert run(command(folder, base_folder, method=method), folder / "said") == 0, (folder / "said").read_text()
            assert results(folder)["steps"] == 8 and results(folder)["epochs"] >= 2
            done[method] = folder
        return done[method]

    return of
