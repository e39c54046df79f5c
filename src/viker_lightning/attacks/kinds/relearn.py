"""Relearning: a little fine-tuning, after which people who were not in it should be as unknown as to gold."""

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from typing_extensions import override

from viker_lightning.attacks.attempt import Attempt
from viker_lightning.attacks.base import Attack, ask
from viker_lightning.attacks.material import Material
from viker_lightning.attacks.subject import Subject
from viker_lightning.data.records import ImageGroup, Person, person_name
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, Lora, split_to_budget
from viker_lightning.terminal.progress import Bar

log = logging.getLogger(__name__)

EVERYBODY, ADAPTER = "relearning on the forget set", "relearning with the adapter kept"
UNRELATED = "relearning on other people"


@dataclass(frozen=True)
class Relearn(Attack):
    """Fine-tunes on the forget set, on a part of its people, or on people who are kept, and asks along the way.

    To teach everybody again measures how fast they are learned, to be compared with gold. To teach some of them, or
    people who were never forgotten, and to ask about the others measures what is still there (PAVA, table 7).
    Each of these starts from merged weights with a LoRA of its own; a run with an adapter is also trained on from it.

    Args:
        steps: optimizer steps at which is asked; the last one ends it.
        shares: parts of the forget people that are taught, each of which leaves others to be asked about.
        lr: learning rate of AdamW, without warm-up, decay or schedule. The source trains all weights at 2e-5; a LoRA,
            which begins at nothing, hardly moves at that, so it has ten times as much.
        batch_size: questions a step.
        questions_per_image: most questions about one photo in a step.
        rank: of the LoRA; its alpha is twice that.
    """

    name = "relearn"
    about = "fine-tunes on the forget set, on some of its people, or on others, and asks about those not taught"
    source = (
        "1 epoch at 2e-5 in batches of 32: UDS scripts/meta_eval_robustness.py L404-432; people held out: PAVA, table "
        "7; unrelated data: XMUDeepLIT/VLM-UnL-Attack a47751b src/test/vgg_test_retrain_ood.py L84"
    )
    axis = "steps"
    teaches = (EVERYBODY, ADAPTER)

    steps: tuple[int, ...] = (0, 1, 2, 5, 10, 25, 50, 100)
    shares: tuple[float, ...] = (0.1, 0.2, 0.3)
    lr: float = 2e-4
    batch_size: int = 32
    questions_per_image: int = 8
    rank: int = 8

    subjects = ("run", "gold")

    def __post_init__(self) -> None:
        if not self.steps or self.steps[0] != 0 or any(one < 0 for one in self.steps) or max(self.steps) < 1:
            raise UserError(f"relearn.steps: found {list(self.steps)}, expected 0 first, then numbers of steps")
        if not all(0 < share < 1 for share in self.shares):
            raise UserError(f"relearn.shares: found {list(self.shares)}, expected shares above 0 and below 1")
        if min(self.batch_size, self.questions_per_image, self.rank) < 1 or self.lr <= 0:
            raise UserError(
                f"relearn: batch_size={self.batch_size}, questions_per_image={self.questions_per_image} and "
                f"rank={self.rank} must be at least 1, lr={self.lr} above 0"
            )

    @override
    @classmethod
    def quick(cls) -> Self:
        return cls(steps=(0, 5, 20), shares=(0.3,))

    @override
    def parts(self) -> list[str]:
        return [EVERYBODY, ADAPTER, *(f"relearning on {share:.0%}" for share in self.shares), UNRELATED]

    @override
    def carry_out(self, part: str, subject: Subject, material: Material) -> list[Attempt]:
        taught = self._taught(part, material)
        if not taught:
            return []
        start = subject.load_with_adapter() if part == ADAPTER else subject.load()
        if start is None:
            return []
        if part == ADAPTER:
            for name, weight in start.named_parameters():
                weight.requires_grad_("lora_" in name)
        else:
            torch.manual_seed(material.seed)
            start.adapt(Lora(r=self.rank, alpha=2 * self.rank))
        if subject.checkpointing:
            start.checkpoint_gradients()
        names = {person_name(p.id) for p in taught} if part not in (EVERYBODY, ADAPTER) else set()
        asked = [group for group in material.asked if person_name(group.person) not in names]
        of = len({person_name(p.id) for p in material.people})
        series = f"relearning on {len(names)} of {of} people" if part not in (EVERYBODY, ADAPTER, UNRELATED) else part
        found: list[Attempt] = []
        with Bar(part, max(self.steps)) as bar:
            for step in self.train(start, taught, material.seed):
                if step in self.steps:
                    found += ask(start, asked, series, step)
                if step:
                    bar.advance()
        if part == EVERYBODY:  # before any step nothing is taught
            found += [replace(one, series=self.clean, x=None) for one in found if one.x == 0]
        return found

    def _taught(self, part: str, material: Material) -> Sequence[Person]:
        """Whose records are trained on; nobody where that would leave nobody to ask about."""
        if part in (EVERYBODY, ADAPTER):
            return material.people
        draw = random.Random(material.seed)
        if part == UNRELATED:
            return draw.sample(list(material.others), min(len(material.people), len(material.others)))
        names = sorted({person_name(p.id) for p in material.people})
        share = self.shares[self.parts().index(part) - 2]
        count = max(1, round(share * len(names)))
        earlier = [max(1, round(other * len(names))) for other in self.shares[: self.shares.index(share)]]
        if count in earlier or count >= len(names):
            why = "as many as an earlier share" if count in earlier else "nobody would be left to ask about"
            log.warning("relearn: %s left out: that is %d of %d people, %s", part, count, len(names), why)
            return []
        chosen = set(draw.sample(names, count))
        return [p for p in material.people if person_name(p.id) in chosen]

    def train(self, mllm: MLLM, people: Sequence[Person], seed: int) -> Iterator[int]:
        """Takes the steps one after another, training in fp32 what requires a gradient.

        Yields:
            How many steps have been taken, from 0 on, the model being in evaluation mode but for 0.
        """
        trained = [p for p in mllm.parameters() if p.requires_grad]
        for weight in trained:
            weight.data = weight.data.float()
        optimizer = torch.optim.AdamW(trained, lr=self.lr, weight_decay=0.0)
        batches = self._batches(people, seed)
        yield 0
        for step in range(1, max(self.steps) + 1):
            groups = next(batches)
            total = sum(len(mllm.encoder.encode(q, g.image is not None).answer) for g in groups for q in g.vqa)
            mllm.train()
            for part in split_to_budget(mllm, groups):
                (-mllm.answer_tokens(mllm.pack(part)).log_probs.sum() / total).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            mllm.eval()
            yield step

    def _batches(self, people: Sequence[Person], seed: int) -> Iterator[list[ImageGroup]]:
        """Questions of a step, epoch by epoch in an order of its own."""
        most = min(self.questions_per_image, self.batch_size)
        groups: list[ImageGroup] = []
        for person in people:
            parts = [person.vqa[start : start + most] for start in range(0, len(person.vqa), most)]
            groups += [ImageGroup(person.id, picture, vqa=p) for picture in person.images or (None,) for p in parts]
        draw = random.Random(seed)
        left: list[ImageGroup] = []
        while True:
            step: list[ImageGroup] = []
            while sum(len(group.vqa) for group in step) < self.batch_size:
                left = left or draw.sample(groups, len(groups))
                step.append(left.pop(0))
            yield step
