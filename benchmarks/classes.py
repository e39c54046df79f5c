"""A step of every class of methods, as the trainer takes it, against one of gradient ascent."""

from __future__ import annotations

import inspect
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from lightning.pytorch import Callback, Trainer, seed_everything

from models import MODELS, questions, text
from viker_lightning import methods
from viker_lightning.data.datasets.base import Benchmark
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import Person, Split, Training
from viker_lightning.methods import GradientAscent, Method
from viker_lightning.methods.described import by_default
from viker_lightning.models import Lora
from viker_lightning.storage.runs import CheckpointFile
from viker_lightning.training import Unlearn
from viker_lightning.training.engine import Engine

CONFIGS = Path(__file__).resolve().parents[1] / "configs/mini"


def configs(name: str) -> dict[str, dict[str, Any]]:
    """The model of every config in :data:`CONFIGS` that uses a class of methods, by name of the file."""
    found = {}
    for file in sorted(CONFIGS.glob("*.yaml")):
        model = yaml.safe_load(file.read_text("utf-8"))["model"]["init_args"]
        if str(model.get("method", {}).get("class_path", "")).rpartition(".")[2] == name:
            found[file.name] = model
    return found


def lora_of(name: str) -> Lora | None:
    """LoRA, unless every config of a class trains the weights themselves."""
    used = configs(name).values()
    return None if used and all(model.get("lora", ()) is None for model in used) else Lora()


def default(name: str, inside: Method | None = None) -> Method:
    """A method of the package with default arguments; one around another is around that, or gradient difference.

    Layers are those of its config, if that names any: a model of few layers has none of those that are meant for 7B.
    """
    kind = getattr(methods, name)
    arguments = inspect.signature(kind).parameters
    used = next((model["method"].get("init_args") or {} for model in configs(name).values()), {})
    layers = {key: value for key, value in used.items() if "layer" in key and key in arguments}
    if kind is methods.PromptOnly:  # nobody has a name here
        return kind("Do not identify anybody.")
    return by_default(kind, inside, **layers)


class TwoPeople(Benchmark):
    """One person to forget and one to retain, with a photo and some questions each, all of them in every step."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__(".", batch_size=count, questions_per_image=count)
        self.count, self.size = count, size

    def read_training(self) -> Training:
        """Questions that both are asked, with a wrong answer each."""
        photos = irrelevant_images("scenes", 2, seed=5, size=self.size)
        asked = questions(self.count)
        wrong = [replace(one, perturbed=(text(90 + i, 19),)) for i, one in enumerate(asked)]
        people = [Person(name, (photo,), tuple(wrong)) for name, photo in zip(("a", "b"), photos, strict=True)]
        return Training(people, ["a"], ["b"])

    def read_split(self, split: Split, modality: str) -> list:
        """Nothing is evaluated."""
        return []


class Clock(Callback):
    """CPU seconds of what comes before the first step, and of every step."""

    def __init__(self) -> None:
        self.before, self.steps, self._started = 0.0, [], 0.0

    def on_train_start(self, *_: Any) -> None:
        """Others, and the module, get ready behind this."""
        self._started = time.process_time()

    def on_train_batch_start(self, *_: Any) -> None:
        """What stands between two steps is not counted."""
        if not self.steps:
            self.before = time.process_time() - self._started
        self._started = time.process_time()

    def on_train_batch_end(self, *_: Any) -> None:
        """A step, its optimizer's included."""
        self.steps.append(time.process_time() - self._started)

    def on_train_end(self, *_: Any) -> None:
        """A method that edits weights has taken no step."""
        if not self.steps:
            self.before = time.process_time() - self._started


def timed(method: Method, vanilla: Path, count: int, size: int, steps: int) -> Clock:
    """Trains a few steps behind one that is not counted."""
    seed_everything(0, verbose=False)
    clock = Clock()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "use_distributed_sampler": False, "plugins": [CheckpointFile()]}
    trainer = Trainer(accelerator="cpu", max_steps=1 + steps, callbacks=[clock], **quiet)
    lora = lora_of(type(method).__name__)
    module = Unlearn(method, str(vanilla), lora, lr=1e-4, engine=Engine(references="memory"))
    trainer.fit(module, datamodule=TwoPeople(count, size))
    del clock.steps[:1]
    return clock


def measured(vanilla: Path, names: Sequence[str], repeats: int, count: int = 6, size: int = 336) -> list[dict]:
    """Rows of classes: CPU seconds of a step, and in steps of gradient ascent, taken just before, what it costs.

    Args:
        vanilla: folder of a model.
        names: of the classes.
        repeats: counted steps.
        count: questions a step asks of each of the two people.
        size: of the photos, pixels.

    Returns:
        ``of_gradient_ascent`` and ``before_first_step``, what is done once before the first step or, by a method that
        edits the weights, in place of all; such a method has no seconds.
    """
    rows = []
    for name in names:
        one = timed(GradientAscent(), vanilla, count, size, repeats)
        other = timed(default(name), vanilla, count, size, repeats)
        step, seconds = median(one.steps), median(other.steps) if other.steps else None
        rows.append(
            {
                "method": name,
                "cpu_seconds": seconds,
                "of_gradient_ascent": None if seconds is None else seconds / step,
                "before_first_step": other.before / step,
            }
        )
        print(f"  {rows[-1]}", flush=True)
    return rows


def classes_section(name: str, repeats: int) -> list[dict]:
    """Every class with default arguments, on two photos with 6 questions each; k = 5 irrelevant images, 20 strangers.

    References are kept in memory, so that what a frozen model says is asked once.
    """
    mllm = MODELS[name]()
    mllm.model = mllm.model.merge_and_unload()
    with tempfile.TemporaryDirectory() as folder:
        mllm.save(Path(folder))
        del mllm
        return measured(Path(folder), methods.NAMES, repeats)
