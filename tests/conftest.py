"""Tiny models and the smallest embedded benchmark; every cache is a temporary folder.

What takes long to import is imported by the fixture that needs it: the process that only hands tests out to others
reads this file, too.
"""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: more threads would only wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
from contextlib import nullcontext

import pytest

os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

CI = "mini/ci"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """A cache folder whose vision tower is there already, untrained, so that no test waits for it."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel

    from viker_lightning.data.embedded import vision_tower
    from viker_lightning.storage.cache import cache_folder

    folder = tmp_path_factory.mktemp("cache")
    os.environ["VIKER_LIGHTNING_CACHE"] = str(folder)
    torch.manual_seed(0)
    tower = CLIPVisionModel(CLIPVisionConfig(**vision_tower.CONFIG))
    tower.save_pretrained(cache_folder("models", f"mini-tower-{vision_tower.fingerprint()}"))
    return folder


@pytest.fixture(scope="session", autouse=True)
def no_fork_server(cache):
    """Grids start their runs in the ordinary way: a server would load torch once more, beside every test of a grid."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("viker_lightning.jobs.runner.fork_server", lambda _: nullcontext({}))
        yield


@pytest.fixture(scope="session")
def data(cache):
    """The ci benchmark, set up for unlearning; read only."""
    from viker_lightning.data.datasets.mllmu import MLLMU

    module = MLLMU(CI, batch_size=8, questions_per_image=4)
    module.prepare_data()
    module.setup()
    return module


@pytest.fixture(scope="session")
def base_folder(data):
    """The untrained embedded model of the ci benchmark."""
    from viker_lightning.data.embedded.llava import untrained_model
    from viker_lightning.methods.idk import REFUSALS

    return untrained_model([*data.texts(), *REFUSALS])


@pytest.fixture
def mllm(base_folder):
    """An embedded model with random weights, large enough to make differences visible, and LoRA that is not zero."""
    from lightning.pytorch import seed_everything

    from support.weights import randomise, randomise_lora
    from viker_lightning.models import MLLM, Lora

    seed_everything(0, verbose=False)
    model = MLLM.load(base_folder)
    randomise(model, projector=0.3)
    model.adapt(Lora())
    randomise_lora(model)
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
def finished(base_folder, tmp_path_factory):
    """A finished ViKeR run of two steps on mini/ci with a CSV logger, read only; one for all workers of a session."""
    from support.shared import made_once, viker_run

    return made_once(tmp_path_factory, "finished", lambda folder: viker_run(folder, base_folder))


@pytest.fixture(scope="session")
def whole(base_folder, tmp_path_factory):
    """Runs of tests/support/killing.py that nobody stopped, by method."""
    from support.killing import command, results, run

    done = {}

    def of(method):
        if method not in done:
            folder = tmp_path_factory.mktemp("whole")
            assert run(command(folder, base_folder, method=method), folder / "said") == 0, (folder / "said").read_text()
            assert results(folder)["steps"] == 8 and results(folder)["epochs"] >= 2
            done[method] = folder
        return done[method]

    return of


@pytest.fixture
def classifier(base_folder, tmp_path):
    """A tiny classifier of clean and other text, untrained, with the model's own tokenizer."""
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    names = {"vocab_size": len(tokenizer), "id2label": {0: "clean", 1: "noise"}}
    config = DistilBertConfig(**names, dim=16, hidden_dim=16, n_layers=1, n_heads=2)
    DistilBertForSequenceClassification(config).save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    return tmp_path / "classifier"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny open_clip model, untrained."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from viker_lightning.data.pictures.clip import WEIGHTS

    folder = tmp_path_factory.mktemp("clip")
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    (folder / "viker-test-cli.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "viker-test-cli.json")
    torch.manual_seed(0)
    save_file(open_clip.create_model("viker-test-cli", load_weights=False).state_dict(), folder / WEIGHTS)
    normal = {"mean": [0.4] * 3, "std": [0.3] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": normal}))
    return folder
