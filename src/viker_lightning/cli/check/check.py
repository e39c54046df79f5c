"""What a run will take, or what is wrong with it, before it is started: nothing is trained, no weights are loaded."""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub import constants
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from transformers.utils.hub import cached_file

from viker_lightning.cli.preview import base_of, counted, length, use_of
from viker_lightning.data.datasets import Benchmark
from viker_lightning.data.embedded.embedded_models import EMBEDDED_MODELS
from viker_lightning.data.records import ImageGroup, person_name
from viker_lightning.data.sampling import epoch_steps
from viker_lightning.errors import UserError, say
from viker_lightning.evaluation.gibberish import GibberishClassifier
from viker_lightning.jobs.processes import cores
from viker_lightning.models import MLLM, decoder_layers
from viker_lightning.models.adapter import saved_config
from viker_lightning.models.loading import Weights, skeleton
from viker_lightning.storage.cache import cache_folder
from viker_lightning.storage.runs import names
from viker_lightning.storage.runs.names import is_finished, weights_folder
from viker_lightning.terminal.failures import ending, one_line
from viker_lightning.training import Finetune, Unlearn
from viker_lightning.training.base import Stage
from viker_lightning.training.finished import config_source
from viker_lightning.training.vanilla import YAML, kept_in

from .estimates import FP32, GIB, LIBRARIES, PASSING, STANDING, ModelSize, Setting, Workload, memory, most
from .machine import device_memory, existing, free_disk, same_disk, supports, writable
from .workload import KeptReferences, kept_references, load_of, number_of_steps

LEAST_MOVED = 0.02
"""Steps times learning rate of an adapter; the tuned settings of the embedded model have 0.08 (ViKeR) to 0.62 (NPO)."""

JUDGE = "judge of evaluations"
"""It may be of another family than the trained model."""


class Check:
    """Looks at data, model, memory and disk of a run, prints what it finds, and goes on where something is wrong.

    What was asked for and the trainer does not know is in the config of the run; ``unfit`` says why the trainer cannot
    be made on this machine, if it cannot.
    """

    def __init__(
        self, trainer: Trainer, stage: Stage, data: Benchmark, config: Namespace, run: Path, unfit: str
    ) -> None:
        self.trainer, self.stage, self.data, self.config, self.run = trainer, stage, data, config, run
        self.problems: list[str] = [unfit] if unfit else []
        self.device = trainer.strategy.root_device
        trainer.datamodule = data  # type: ignore[attr-defined]  # as fit does
        data.trainer = stage.trainer = trainer
        trainer.state.fn = TrainerFn.FITTING
        self._set_up = self._served = False  # whether the data could be read, and are those that the stage needs
        self._to_make = ""  # the config of a vanilla model that is not there yet
        self._to_fetch = False  # whether the hub has weights that this machine has not

    def carry_out(self) -> None:
        """Prints what a run will take.

        Raises:
            SystemExit: with code 1 and a line for each problem.
        """
        self._look_at_data()
        mllm = self._look_at_model()
        self._look_at_device()
        if mllm is not None and self._served:
            self._look_at_run(mllm)
        if self.problems:
            sys.stdout.flush()
            sys.exit("\n".join(ending(line) for line in dict.fromkeys(self.problems)))
        say("ready")

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Notes what a user can fix, and goes on."""
        try:
            yield
        except Exception as error:
            if (line := one_line(error)) is None:
                raise
            self.problems.append(line)

    def _look_at_data(self) -> None:
        """Reads who is trained on, and all rows of all splits."""
        data = self.data
        say(f"data: {data.root} ({type(data).__name__}, {data.stage}, {data.protocol})")
        with self._noting():
            data.prepare_data()
            data.setup("fit")
            for name, people in data.streams.items():
                asked = list(self.stage.method.streams) if isinstance(self.stage, Unlearn) else list(data.streams)
                groups = [ImageGroup(p.id, i) for p in people for i in p.images or (None,)]
                questions = sum(len(person.vqa) for person in people)
                use = use_of(name, asked, list(data.streams))
                say(f"  trained on: {name}: {_counts(groups, questions)}{use}")
                for group in groups:
                    if group.image is not None:
                        group.image.verify()
            self._set_up = True
        for split in data.splits if self._set_up else ():
            with self._noting():
                groups = data.evaluation(split)
                for group in groups[:1]:
                    if group.image is not None:
                        group.image.verify()
                questions = sum(len(group.vqa) + len(group.choices) + len(group.clozes) for group in groups)
                say(f"  evaluated: {split}: {_counts(groups, questions) if groups else 'none'}")
        if self._set_up and (skipped := data.skipped):
            say(f"  left out: {counted(len(skipped), 'bad row', 'bad rows')}, e.g. {skipped[0]}")
        if data.stage not in self.stage.stages:
            known = " or ".join(self.stage.stages) or "no training"
            kind = type(self.stage).__name__
            self.problems.append(f"data.stage: found {data.stage!r}, but {kind} needs {known}; set it")
        elif self._set_up:
            with self._noting():
                self.stage.setup("fit")
                self._served = True

    def _source(self) -> str:
        """Folder or hub id of a model of the sizes that the run's will have."""
        stage = self.stage
        if isinstance(stage, Finetune):
            return _embedded(stage.base)
        if not isinstance(stage, Unlearn):
            raise UserError(f"model: found {type(stage).__name__}, which is never trained; check takes what fit takes")
        vanilla = stage.vanilla
        if vanilla.endswith(YAML):
            base = _embedded(base_of(vanilla))  # an error where it is no such YAML
            if self._set_up and is_finished(kept := kept_in(vanilla, self.data)):
                return str(weights_folder(kept))
            self._to_make = vanilla
            return base
        return config_source(str(Path(vanilla).parent) if Path(vanilla).name == names.ADAPTER else vanilla)

    def _look_at_model(self) -> MLLM | None:
        """The model without weights, with its adapter; ``None`` if something is wrong with it."""
        stage = self.stage
        with self._noting():
            source = self._source()
            model, processor, family = skeleton(source, stage.weights)
            mllm = MLLM(model, processor, None, family)
            mllm.packs = family.packs
            self._to_fetch = not Path(source).is_dir() and not _fetched(source, stage.weights.revision)
            with self._noting():  # nothing is trained if that cannot be
                mllm.requires_grad_(False)
                if isinstance(stage, Unlearn) and stage.lora is not None and stage.adapter is not None:
                    saved_config(Path(stage.adapter), stage.lora)
                    stage.adapter = None  # its weights are not read
                with torch.device("meta"):
                    stage.choose_trained(mllm)
            shape = shape_of(mllm)
            say(f"model: {type(mllm.base).__name__} (family {type(family).__name__}), {source}")
            if Path(source).is_dir() and not _weighty(source):
                say("  no weights (*.safetensors) are there, which fit needs; the numbers are those of config.json")
            if self._to_make:
                say(f"  fit first makes the vanilla model of {self._to_make}, which has these sizes")
            trained, how = shape.trained, "LoRA" if stage.lora else "in full"
            say(f"  {shape.weights:,} weights, {trained:,} trained ({how}), {shape.weights - trained:,} frozen")
            return mllm
        return None

    def _look_at_device(self) -> None:
        """Whether there are so many, and whether they compute in what was asked for."""
        if self.device.type == "cpu" and self.trainer.num_devices > cores():
            self.problems.append(
                f"trainer.devices: found {self.trainer.num_devices} processes, expected at most {cores()}, as many as "
                "there are cores; lower it"
            )
        if self.stage.weights.quantize is not None and isinstance(self.trainer.strategy, ModelParallelStrategy):
            self.problems.append(
                "trainer.strategy: FSDP2 cannot shard quantized weights; use ddp, or leave model.quantize out"
            )
        weights = {"bfloat16": "bf16", "float16": "16"}.get(self.stage.weights.dtype, "32")
        kinds = f"{self.trainer.precision}, weights in {self.stage.weights.dtype}"
        say(f"device: {self.device}, precision {kinds}")
        for option, value in (("trainer.precision", str(self.trainer.precision)), ("model.dtype", weights)):
            if not supports(self.device, value):
                self.problems.append(
                    f"{option}: {self.device} has no bf16; use 16-mixed or 32-true, and float16 or float32"
                )

    def _look_at_run(self, mllm: MLLM) -> None:
        """Steps, memory and disk."""
        stage = self.stage
        with self._noting():
            if isinstance(stage, Unlearn):
                stage.clip = None  # its weights are not read: any image of a kind has the same size
            stage.take_model(mllm)
            if isinstance(stage, Unlearn):
                stage.prepare_streams(ask=False)
            shape = shape_of(mllm)
            load = self._steps()
            kept = kept_references(stage, shape.hidden)
            self._memory(mllm, shape, load, kept)
            self._disk(shape, kept)

    def _steps(self) -> Workload:
        """How long the run is, and the largest pass."""
        stage, data, trainer = self.stage, self.data, self.trainer
        load = load_of(stage, self.config.evaluation.max_new_tokens)
        epoch = epoch_steps(len(data.train_dataloader()), trainer.limit_train_batches)
        number = number_of_steps(trainer.max_steps, trainer.max_epochs, epoch)
        if isinstance(stage, Unlearn) and not stage.method.takes_steps:
            say(f"training: none, {type(stage.method).__name__} edits the weights once")
        elif number == math.inf and not any(isinstance(one, Timer) for one in trainer.callbacks):  # type: ignore[attr-defined]
            self.problems.append("trainer.max_steps: found no limit, nor max_epochs; set one of them, or max_time")
        elif number == math.inf:
            each = f"{load.questions:.4g} questions a step, on each process"
            say(f"training: until trainer.max_time is over, {epoch} steps an epoch; {each}")
        else:
            whole = f"{number * load.questions:,.0f} in all, on each process"
            say(f"training: {length(number, epoch)}; {load.questions:.4g} questions a step, {whole}")
            if stage.lora is not None and number * stage.lr < LEAST_MOVED:
                say(
                    f"  steps times model.lr are {number * stage.lr:.2g}; the embedded model forgets with "
                    "0.08 to 0.6, so that this may change little"
                )
        say(f"  largest part of a step: {load.tokens:,} tokens, {load.answers:,} of them answers")
        say("  time: not known before it runs; fit shows how much is left from its first steps on")
        return load

    def _memory(self, mllm: MLLM, shape: ModelSize, load: Workload, kept: KeptReferences) -> None:
        """What is needed on the device, beside what is there."""
        stage, device = self.stage, self.device
        narrow = stage.weights.dtype != "float32" or str(self.trainer.precision) in ("bf16-true", "16-true")
        itemsize = 2 if narrow else FP32
        shards = self.trainer.world_size if isinstance(self.trainer.strategy, ModelParallelStrategy) else 1
        setting = Setting(
            itemsize=itemsize,
            trained_itemsize=FP32 if stage.lora is not None else itemsize,
            quantize=stage.weights.quantize,
            checkpointing=stage.engine.gradient_checkpointing,
            shards=shards,
            others=self._others(mllm),
            trains=not isinstance(stage, Unlearn) or stage.method.takes_steps,
            copies=stage.method.copies if isinstance(stage, Unlearn) else 0,
            references=kept.memory if device.type == "cpu" else 0,
            libraries=LIBRARIES if device.type == "cpu" else 0,
        )
        needed = memory(shape, load, setting)
        say("memory, estimated, GiB:")
        for name, size in {**needed[STANDING], **needed[PASSING]}.items():
            if size:
                say(f"  {size / GIB:8.2f}  {name}")
        whole, there = most(needed), device_memory(device)
        has = "unknown" if there is None else f"{there / GIB:.2f}"
        say(f"  {whole / GIB:8.2f}  peak; available on {device}: {has}")
        if kept.memory and device.type != "cpu":
            say(f"  {kept.memory / GIB:8.2f}  predictions of frozen models, in the memory of the machine")
        if there is not None and whole > there:
            self.problems.append(
                f"memory: about {whole / GIB:.2f} GiB are needed, {there / GIB:.2f} GiB are there on {device}; "
                + self._smaller(mllm, shape, load, setting)
            )

    def _others(self, mllm: MLLM) -> dict[str, int]:
        """Bytes of the models that are asked beside the trained one, by what they are."""
        stage, evaluation = self.stage, self.config.evaluation
        gold = stage.method.references.get("gold") if isinstance(stage, Unlearn) else None
        judge = evaluation.judge if evaluation.coherence else None
        judge = _embedded(base_of(judge)) if judge and judge.endswith(YAML) else judge
        itemsize = FP32 if stage.weights.dtype == "float32" else 2
        asked = [
            ("gold model of the method", gold and gold.folder),
            ("gold model of evaluations", evaluation.gold),
            (JUDGE, judge),
        ]
        found = {}
        for name, source in asked:
            with self._noting():
                if source:
                    family = mllm.family_for(source) if name == JUDGE else mllm.family
                    weights = Weights(trust_remote_code=stage.weights.trust_remote_code, family=family)
                    model, _, _ = skeleton(source, weights)
                    found[name] = sum(p.numel() for p in model.parameters()) * itemsize
        with self._noting():
            if evaluation.gibberish:
                found["classifier of gibberish"] = GibberishClassifier.weights(evaluation.gibberish) * FP32
        return found

    def _smaller(self, mllm: MLLM, shape: ModelSize, load: Workload, setting: Setting) -> str:
        """What would take less, and how much that is."""

        def size(load: Workload = load, **options: object) -> int:
            return most(memory(shape, load, replace(setting, **options)))  # type: ignore[arg-type]

        ways = {}
        if setting.quantize is None and self.stage.lora is not None:
            ways["--model.quantize nf4"] = size(quantize="nf4")
        if not setting.checkpointing:
            ways["--model.engine.gradient_checkpointing true"] = size(checkpointing=True)
        budgets = {load.tokens // 2, load.evaluated // 2} - {0}
        halves = [(size(half), -b) for b in budgets if (half := self._load_within(mllm, b)) is not None]
        if halves:
            less, budget = min(halves)
            ways[f"--model.engine.max_tokens {-budget} (and max_sequence_tokens, no more than that)"] = less
        now = size()
        offered = [f"{way} (about {less / GIB:.2f} GiB)" for way, less in ways.items() if less < now]
        return f"try {', or '.join(offered)}, or a larger device" if offered else "take a larger device"

    def _load_within(self, mllm: MLLM, budget: int) -> Workload | None:
        """What would pass the model at once within another budget; ``None`` where something needs more."""
        given = mllm.max_sequence_tokens, mllm.max_tokens
        mllm.set_budgets(min(given[0], budget), budget)
        try:
            return load_of(self.stage, self.config.evaluation.max_new_tokens)
        except UserError:
            return None
        finally:
            mllm.set_budgets(*given)

    def _disk(self, shape: ModelSize, kept: KeptReferences) -> None:
        """What will be written, beside the room there is."""
        stage, saved = self.stage, self.config.checkpoint
        itemsize = FP32 if stage.lora is not None or stage.weights.dtype == "float32" else 2
        trained, full = shape.trained * itemsize, shape.weights * FP32
        checkpoint = 3 * trained + kept.checkpoint
        number = number_of_steps(self.trainer.max_steps, self.trainer.max_epochs, len(self.data.train_dataloader()))
        more = int(min(number, 10**9)) // saved.every_n_train_steps if saved.save_top_k < 0 else saved.save_top_k
        parts = {"checkpoints": checkpoint * (2 + more), "adapter" if stage.lora is not None else "model": trained}
        if isinstance(stage, Finetune):  # an adapter is merged in fp32, a whole model written as it is
            parts["model"] = full if stage.lora is not None else shape.weights * itemsize
        elif stage.lora is None:
            parts["model"] = shape.weights * itemsize
        if isinstance(stage, Unlearn) and stage.save_merged:
            parts["merged model"] = full
        cached = {"ideal distributions and other references": kept.disk, "vanilla model": full * bool(self._to_make)}
        hub = {"weights from the hub": shape.weights * 2 * self._to_fetch}
        places = [(self.run, parts), (cache_folder(), cached), (Path(constants.HF_HUB_CACHE), hub)]
        self._compare([(folder, {n: size for n, size in found.items() if size}) for folder, found in places])

    def _compare(self, places: Sequence[tuple[Path, dict[str, int]]]) -> None:
        """Room in folders with what is to be written there; folders of one disk share it."""
        say("disk, GiB:")
        used = [(folder, parts) for folder, parts in places if parts]
        for folder, parts in used:
            together = sum(sum(more.values()) for other, more in used if same_disk(folder, other))
            free = free_disk(folder)
            what = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
            say(f"  {sum(parts.values()) / GIB:8.2f}  {folder}: {what}; {free / GIB:.2f} free")
            if not writable(folder):
                self.problems.append(f"disk: {existing(folder)} cannot be written to; give another folder for {folder}")
            elif together > free:
                self.problems.append(
                    f"disk: about {together / GIB:.2f} GiB are needed where {folder} is, found {free / GIB:.2f} free; "
                    "make room, or set trainer.default_root_dir, VIKER_LIGHTNING_CACHE or HF_HOME to another disk"
                )


def shape_of(mllm: MLLM) -> ModelSize:
    """The numbers of a model, which needs no weights (torch's meta device does)."""
    text, language_model = mllm.base.config.get_text_config(), mllm.language_model
    linear = [m for m in language_model.modules() if isinstance(m, nn.Linear)]
    heads = int(text.num_attention_heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    keys = int(getattr(text, "num_key_value_heads", None) or heads)
    layers = decoder_layers(language_model)
    return ModelSize(
        weights=sum(p.numel() for p in mllm.parameters()),
        trained=sum(p.numel() for p in mllm.parameters() if p.requires_grad),
        linear=sum(m.weight.numel() for m in linear if not m.weight.requires_grad),
        decoder=sum(p.numel() for layer in layers for p in layer.parameters()),
        hidden=int(text.hidden_size),
        inner=int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
        layers=len(layers),
        key_value=2 * keys * width,
        vocabulary=int(mllm.head.get_parameter("weight").shape[0]),
    )


def _embedded(base: str) -> str:
    """A folder of the sizes of an embedded model, without building it; any other name as it is."""
    if base not in EMBEDDED_MODELS:
        return base
    folder = EMBEDDED_MODELS[base].sizes()
    if not (folder / "config.json").is_file():
        raise UserError(f"model.base: {base} is not built yet, so its sizes are not known; the first run builds it")
    return str(folder)


def _fetched(source: str, revision: str | None) -> bool:
    """Whether the weights of a hub id are on this machine."""
    there = cached_file(source, "config.json", revision=revision)  # read already
    return there is not None and _weighty(Path(there).parent)


def _weighty(folder: str | Path) -> bool:
    """Whether weights lie in a folder."""
    return any(Path(folder).glob("*.safetensors"))


def _counts(groups: Sequence[ImageGroup], questions: int) -> str:
    """People, photos and questions, in words."""
    people = len({person_name(group.person) for group in groups})
    photos = len({group.image.key for group in groups if group.image is not None})
    return f"{counted(people, 'person', 'people')}, {counted(photos, 'photo', 'photos')}, {questions} questions"
