"""What a run will ask: steps, questions, tokens of the largest pass, and what of frozen models' words is stored."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice

from viker_lightning.data.encoding import Encoded
from viker_lightning.data.packing import row_tokens
from viker_lightning.evaluation import largest_pass
from viker_lightning.ideal import OwnReference
from viker_lightning.ideal.distribution import in_parts
from viker_lightning.ideal.prefix import in_rows, tokens_behind
from viker_lightning.training import Unlearn, published
from viker_lightning.training.base import Stage
from viker_lightning.training.step import cut

from .estimates import Workload, reference_bytes

LOOKED_AT = 200
"""Steps of the first epoch that are looked at, at most, for the largest pass and for means."""


@dataclass(frozen=True)
class KeptReferences:
    """Bytes of what frozen models say, by where it is kept.

    Attributes:
        disk: in the cache folder, which runs share; what is there already counts, too.
        memory: of the machine, never of a GPU.
        checkpoint: of what is in memory, what a checkpoint repeats.
    """

    disk: int = 0
    memory: int = 0
    checkpoint: int = 0


def number_of_steps(max_steps: int, max_epochs: int | None, epoch: int) -> float:
    """Steps of a run by the trainer's limits and the steps of an epoch; infinite if neither limit is set."""
    limits = [max_steps] * (max_steps >= 0) + [(max_epochs or 0) * epoch] * (max_epochs is not None and max_epochs >= 0)
    return min(limits, default=math.inf)


def load_of(stage: Stage, max_new_tokens: int) -> Workload:
    """What passes the model at once, of the whole run, and what a step asks as a mean; see :data:`LOOKED_AT`."""
    mllm, protocol = stage.mllm, published.protocol_of(stage.data)
    tokens = answers = seen = steps = questions = trained_on = 0
    for step, bundle in enumerate(islice(iter(stage.data.train_dataloader()), LOOKED_AT)):
        groups = stage.step_questions(bundle.content, step)
        for part in cut(mllm, groups, stage.most_questions, stage.whole_steps):
            batches = [mllm.pack(some) for some in part.values() if some]
            sizes, labels = [batch.input_ids.numel() for batch in batches], sum(len(batch.labels) for batch in batches)
            masked = [batch.input_ids.shape[1] - batch.shared for batch in batches]
            tokens, answers = max(tokens, sum(sizes)), max(answers, labels)
            seen = max(seen, sum(size * width for size, width in zip(sizes, masked, strict=True)))
            trained_on += labels
        questions += sum(len(group.vqa) for some in groups.values() for group in some)
        steps = step + 1
    evaluation, means = stage.data.evaluation_dataloader(), (questions / max(1, steps), trained_on / max(1, steps))
    evaluated = max((largest_pass(mllm, batch.content, protocol, max_new_tokens) for batch in evaluation), default=0)
    return Workload(tokens, answers, seen, evaluated, *behind_images(stage), *means)


def kept_references(stage: Stage, hidden: int) -> KeptReferences:
    """Bytes of what frozen models say, as far as it is kept.

    What is asked before the first step is counted question by question, exactly, but for a few answers that only the
    report asks about. What is said behind single images is counted as if every question were asked behind each of its
    person's photos: with LoRA it is kept in memory as it is asked, up to a limit; without, all of it is kept
    beforehand.
    """
    if not isinstance(stage, Unlearn) or stage.engine.references == "off":
        return KeptReferences()
    plan, encoder = stage.reference_plan(), stage.mllm.encoder
    beforehand = single = 0
    for behind in plan.behind:
        questions = dict.fromkeys(chain(*behind.questions(encoder)))
        beforehand += reference_bytes(_answers(questions), hidden, 1 + len(behind.pictures) * behind.each)
    for need in plan.needs:
        if need.single and not plan.knows(need):
            groups = plan.groups(need.stream)
            tokens = _answers(encoder.encode(vqa, group.image is not None) for group in groups for vqa in group.vqa)
            single += reference_bytes(tokens, hidden * ((need.level == "kl") + len(stage.method.layers)))
    on_disk = stage.engine.references == "disk"
    if stage.lora is None:
        beforehand, single = beforehand + single, 0
    single = min(single, OwnReference.MEMORY_LIMIT)
    checkpoint = single if single <= OwnReference.CHECKPOINT_LIMIT else 0
    return KeptReferences(beforehand * on_disk, beforehand * (not on_disk) + single, checkpoint)


def _answers(questions: Iterable[Encoded]) -> int:
    return sum(len(question.answer) for question in questions)


def behind_images(stage: Stage) -> tuple[int, int]:
    """Most tokens, images included, and most answer tokens that are read at once behind all pictures."""
    rows = [(0, 0)]
    for behind in stage.reference_plan().behind if isinstance(stage, Unlearn) else ():
        k, image = len(behind.pictures), max(len(stage.mllm.prefix(picture)) for picture in behind.pictures)
        for part in chain(*map(in_parts, behind.questions(stage.mllm.encoder))):
            for row in in_rows(part, tokens_behind(stage.mllm.max_tokens, k)):
                rows.append((k * row_tokens(image, row), _answers(row)))
    return max(tokens for tokens, _ in rows), max(answers for _, answers in rows)
