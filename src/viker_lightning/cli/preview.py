"""The very tokens a run would train on, before any training."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from omegaconf import OmegaConf
from rich.text import Text
from typing_extensions import override

from viker_lightning.data.encoding import Encoder
from viker_lightning.data.packing import PREFIX, PROMPT, PackedBatch
from viker_lightning.data.records import ImageGroup, person_name
from viker_lightning.data.sampling import epoch_steps
from viker_lightning.errors import UserError, check_least
from viker_lightning.ideal import IdealDistribution
from viker_lightning.methods.viker import KEY_ENTROPY
from viker_lightning.models import split_to_budget
from viker_lightning.storage.packaged_configs import config_path
from viker_lightning.storage.runs.names import is_finished
from viker_lightning.terminal.shown import Plain
from viker_lightning.training import Unlearn
from viker_lightning.training.base import Stage
from viker_lightning.training.callbacks.trainer_parts import data_of
from viker_lightning.training.finetune import base_weights
from viker_lightning.training.step import Groups
from viker_lightning.training.vanilla import YAML, kept_in

LEAST_RUN = 4
"""So many equal tokens in a row are shown as one, with their number: positions of an image, padding."""

READ, TRAINED, PRIVATE, KEY = "dim", "green", "bold magenta", "bold yellow"
"""Styles, where there is colour; everything is said without it, too."""

LEGEND = Text.assemble(
    ("reads: seen only", READ),
    "; ",
    ("trains on: labels of the loss, divided by |", TRAINED),
    "; ",
    ("[private span]", PRIVATE),
)


class Previewed(Exception):
    """Everything is shown, and nothing is to be trained."""


@dataclass
class Question:
    """A question of a packed row.

    Attributes:
        reads: ids it is asked with, behind the prefix of its row.
        labels: ids it trains on.
        private: for each label, whether it belongs to a private span.
        entropy: for each label, that of the ideal distribution, nats; empty where that is not asked.
    """

    reads: list[int]
    labels: list[int]
    private: list[bool]
    entropy: list[float]


class Preview(Callback):
    """Shows what the first steps would train on, and ends there: :class:`Previewed`.

    Args:
        questions: how many questions of every stream are shown: those asked first.
        ids: whether every token stands with its id.
    """

    def __init__(self, questions: int = 4, ids: bool = False) -> None:
        check_least("preview", 1, questions=questions)
        self.questions, self.ids = questions, ids
        self._unmade = ""  # the config of a vanilla model that is not there yet

    @override
    def setup(self, trainer: Trainer, pl_module: Stage, stage: str) -> None:
        """Trains no vanilla model either: what it begins with has the same tokens."""
        if not isinstance(pl_module, Unlearn) or not pl_module.vanilla.endswith(YAML):
            return
        config, data = pl_module.vanilla, data_of(trainer)
        if not is_finished(kept_in(config, data)):
            self._unmade, pl_module.vanilla = config, base_weights(base_of(config), data)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: Stage) -> None:
        """Comes before the module's own hook, which asks frozen models about everything."""
        streams = trainer.strategy.broadcast(self._first_streams(trainer, pl_module))  # the first process's first steps
        console = Plain(highlight=False)
        lines = [*self._overview(trainer, pl_module)]
        for name, groups in streams.items():
            rows = [row for part in split_to_budget(pl_module.mllm, groups) for row in part]
            batch = pl_module.mllm.pack(rows)
            asked = questions_of(batch, self._entropies(pl_module, name, batch))
            for number, group in enumerate(rows):
                lines += ["", *self._row(pl_module, f"{name} {number + 1}", group, batch.prefixes[number])]
                for question, found in enumerate(asked[number], start=1):
                    lines += self._question(pl_module.mllm.encoder, question, found)
        if trainer.is_global_zero:
            for line in lines:
                console.print(line, soft_wrap=not console.is_terminal)
        raise Previewed

    def _first_streams(self, trainer: Trainer, stage: Stage) -> Groups:
        """The questions asked first of every stream."""
        streams = list(stage.data.streams)
        found: Groups = {}
        for step, batch in enumerate(trainer.train_dataloader):  # type: ignore[arg-type]
            content = {name: first(groups, self.questions) for name, groups in batch.content.items()}
            if isinstance(stage, Unlearn) and not step:
                needed = stage.method.streams
                made = stage.data.streams if self._unmade else needed  # nobody can ask it what it would say
                streams = [name for name in needed if name in made]
                stage.prepare_streams(content.get("forget", []), ask=not self._unmade)
            asked = stage.step_questions(content, step)
            found |= {name: first(groups, self.questions) for name, groups in asked.items() if name not in found}
            if all(name in found for name in streams):
                break
        return {name: found[name] for name in streams if found.get(name)}

    def _entropies(self, stage: Stage, stream: str, batch: PackedBatch) -> list[float]:
        """Entropy of the ideal distribution for each label of a batch; none where the method does not ask for it."""
        need = stage.method.streams.get(stream) if isinstance(stage, Unlearn) else None
        if not isinstance(stage, Unlearn) or need is None or need.irrelevant is None or self._unmade:
            return []
        ideal = IdealDistribution(stage.mllm, stage.pictures, stage.engine.references)
        with stage.mllm.together():
            return [float(value) for value in ideal.look_up(batch.encoded).entropy]

    def _overview(self, trainer: Trainer, stage: Stage) -> Iterator[Text | str]:
        """What would be trained, on whom, and for how long."""
        data, unlearning = data_of(trainer), stage if isinstance(stage, Unlearn) else None
        what = f"{type(stage).__name__} {type(unlearning.method).__name__ if unlearning else ''}".strip()
        yield Text(f"{what} on {data.root} ({type(data).__name__}, {data.stage}, {data.protocol})", style="bold")
        for name, people in data.streams.items():
            who = len({person_name(person.id) for person in people})
            photos, questions = sum(len(p.images) for p in people), sum(len(p.vqa) for p in people)
            how = use_of(name, list(unlearning.method.streams), list(data.streams)) if unlearning else ""
            yield f"  {name}: {counted(who, 'person', 'people')}, {photos} photos, {questions} questions{how}"
        yield f"  {duration(trainer, stage)}"
        if self._unmade:
            yield (
                f"  the vanilla model of {self._unmade} is not there yet, fit makes it first; the tokens below are "
                "those of the weights it begins with, and nobody knows what it will say: no entropies, no own answers"
            )
        elif unlearning and (irrelevant := unlearning.method.pictures_needed.get("irrelevant")):
            yield (
                "  numbers behind tokens: entropy, in nats, of what the frozen model says behind "
                f"{len(unlearning.pictures)} irrelevant images ({irrelevant[0]}); * above {KEY_ENTROPY}, "
                "a key token"
            )
        if stage.mllm.packs:
            yield "  a row shows its photo once; every question begins right behind it, and sees it and itself alone"
        else:
            yield "  every question is a sequence of its own, with its photo (plain route)"
        yield Text("  ").append(LEGEND)

    def _row(self, stage: Stage, title: str, group: ImageGroup, prefix: Sequence[int]) -> Iterator[Text | str]:
        """Whose picture a row shows, and what stands before its questions."""
        picture = "no photo"
        if group.image is not None:
            width, height = group.image.size()
            picture = f"{group.image.source}, {width} x {height} pixels"
        yield Text(f"{title}: {group.person}; {picture}", style="bold")
        yield Text.assemble(f"  begins with ({len(prefix)} tokens): ", (self._tokens(stage.mllm.encoder, prefix), READ))

    def _question(self, encoder: Encoder, number: int, question: Question) -> Iterator[Text]:
        """What a question reads, and what it trains on."""
        if question.reads:
            read = self._tokens(encoder, question.reads)
            yield Text.assemble(f"  {number} reads ({len(question.reads)}): ", (read, READ))
        line = Text()
        for run, text in runs(encoder, question.labels):
            at = run.start
            entropy = question.entropy[at] if question.entropy else None
            shown = visible(text, len(run)) + self._id(question.labels[at])
            private = question.private[at]
            line.append("|" if line.plain else "")
            line.append(f"[{shown}]" if private else shown, PRIVATE if private else TRAINED)
            if entropy is not None:
                key = entropy > KEY_ENTROPY
                line.append(f" {entropy:.2f}{'*' * key}", KEY if key else READ)
        yield Text(f"  {number} trains on ({len(question.labels)}, {sum(question.private)} private): ").append(line)

    def _tokens(self, encoder: Encoder, ids: Sequence[int]) -> str:
        """Ids as text; as tokens if their ids are shown."""
        shown = [visible(text, len(run)) + self._id(ids[run.start]) for run, text in runs(encoder, ids)]
        return ("|" if self.ids else "").join(shown)

    def _id(self, token: int) -> str:
        return f"#{token}" if self.ids else ""


def base_of(config: str) -> str:
    """What the fine-tuning run of a YAML begins with."""
    model = OmegaConf.to_container(OmegaConf.load(Path(config_path(config))), resolve=False)
    try:
        return str(model["model"].get("init_args", {}).get("base", "mini"))  # type: ignore[index,call-overload,union-attr]
    except (KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{config}: found no model, expected the YAML of a fine-tuning run; name another") from error


def first(groups: Sequence[ImageGroup], questions: int) -> list[ImageGroup]:
    """The first questions of image groups, in their groups."""
    found: list[ImageGroup] = []
    for group in groups:
        left = questions - sum(len(one.vqa) for one in found)
        if left > 0 and group.vqa:
            found.append(replace(group, vqa=group.vqa[:left]))
    return found


def questions_of(batch: PackedBatch, entropy: Sequence[float]) -> list[list[Question]]:
    """The questions of every row, read off the tensors that a step is made of."""
    found: list[list[Question]] = [[] for _ in batch.pictures]
    for number, row in enumerate(batch.row_of):
        own = (batch.question == number).nonzero().flatten().tolist()
        column = int(batch.columns[own[len(batch.encoded[number].lead)]])  # of the last token before its own
        segment = int(batch.segments[row, column])
        prompt = (batch.segments[row] == segment) & (batch.branches[row] == PROMPT)
        reads = [] if segment == PREFIX else batch.input_ids[row][prompt].tolist()
        private = batch.private[own].tolist()
        found[row].append(Question(reads, batch.labels[own].tolist(), private, [entropy[i] for i in own if entropy]))
    return found


def use_of(stream: str, asked: Sequence[str], given: Sequence[str]) -> str:
    """What a method does with a stream of the data; streams that the data have not are made of forget questions."""
    if made := [name for name in asked if name not in given and stream == "forget"]:
        return f"; asked {'as they are, and ' * (stream in asked)}as {' and '.join(made)}"
    return "" if stream in asked else "; this method does not ask them"


def duration(trainer: Trainer, stage: Stage) -> str:
    """Steps and epochs of a run, and what a step asks."""
    if isinstance(stage, Unlearn) and not stage.method.takes_steps:
        return f"no steps: {type(stage.method).__name__} edits the weights, once"
    steps = trainer.estimated_stepping_batches
    epoch = epoch_steps(len(stage.data.train_dataloader()), trainer.limit_train_batches)
    data = stage.data
    most = data.batch_size * data.batches_per_step
    each = f"; a step asks up to {most} questions of a stream, {data.questions_per_image} about a photo"
    several = f", on each of {trainer.world_size} processes" if trainer.world_size > 1 else ""
    if steps == math.inf:
        return f"no end: neither trainer.max_steps nor max_epochs is set; {epoch} steps an epoch{each}{several}"
    return f"{length(steps, epoch)}{each}{several}"


def length(steps: float, epoch: int) -> str:
    """Steps, in words, and as epochs of so many steps."""
    return f"{counted(int(steps), 'step', 'steps')} ({steps / epoch:.4g} epochs of {epoch})"


def counted(number: float, one: str, many: str) -> str:
    """A number and what it counts."""
    return f"{number} {one if number == 1 else many}"


def runs(encoder: Encoder, ids: Sequence[int]) -> Iterator[tuple[range, str]]:
    """Tokens one by one with their text; equal ones in a row together if they are many."""
    found, start = [], 0
    for _, same in groupby(ids):
        stop = start + len(list(same))
        found += [range(start, stop)] if stop - start >= LEAST_RUN else [range(i, i + 1) for i in range(start, stop)]
        start = stop
    yield from zip(found, encoder.texts([ids[run.start] for run in found]), strict=True)


def visible(text: str, times: int = 1) -> str:
    """A token's text in one line; ``x 25`` behind it if it stands there so often."""
    shown = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
    return f"{shown} x {times} " if times > 1 else shown
