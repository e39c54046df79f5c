"""The stage-1 gate of an unlearning run."""

import contextlib
import logging
from dataclasses import asdict

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from viker_lightning.data.datasets import Benchmark
from viker_lightning.data.records import ImageGroup, Split
from viker_lightning.errors import UserError
from viker_lightning.evaluation import Knowledge, measure_knowledge
from viker_lightning.training import Finetune, Unlearn
from viker_lightning.training.base import Stage

from .trainer_parts import back_on_device, data_of

log = logging.getLogger(__name__)


class KnowledgeGate(Callback):
    """Stops an unlearning run whose vanilla model does not know the forget set or does not look at the image.

    A validate run reports the same of its model and is never stopped.

    Args:
        knowledge: least share of private spans the model must know (``known`` of
            :class:`~viker_lightning.evaluation.Knowledge`).
        follows_image: least share of answers about the person shown, when asked about another.
        follows_text: largest share of answers about the person asked about, when another is shown.
        max_new_tokens: where an answer ends at the latest; in a run it is ``evaluation.max_new_tokens``.
    """

    def __init__(
        self, knowledge: float = 0.5, follows_image: float = 0.5, follows_text: float = 0.25, max_new_tokens: int = 50
    ) -> None:
        bounds = {"knowledge": knowledge, "follows_image": follows_image, "follows_text": follows_text}
        for name, bound in bounds.items():
            if not 0 <= bound <= 1:
                raise UserError(f"gate.{name}: found {bound}, expected a share from 0 to 1")
        self.knowledge, self.follows_image, self.follows_text = knowledge, follows_image, follows_text
        self.max_new_tokens = max_new_tokens

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: Stage) -> None:
        back_on_device(trainer, pl_module)
        if isinstance(pl_module, Finetune):
            pl_module.report.knowledge = asdict(self.measure(trainer, pl_module))

    def measure(self, trainer: Trainer, pl_module: Stage) -> Knowledge:
        """Asks the forget questions, straight and with other people's photos."""
        data = data_of(trainer)
        people = {p.id: p for p in data.people()}
        groups = forget_groups(data)
        # In fit the vanilla model is asked, not an adapter that training starts from.
        unlearning = isinstance(pl_module, Unlearn) and trainer.state.fn == TrainerFn.FITTING
        with pl_module.mllm.together(), pl_module.mllm.frozen() if unlearning else contextlib.nullcontext():
            others = [p.id for p in data.people(data.retain_ids) if p.images]
            return measure_knowledge(pl_module.mllm, groups, people, others, self.max_new_tokens)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: Stage) -> None:
        if not any(q.private for group in forget_groups(data_of(trainer)) for q in group.vqa):
            log.info("no forget question has a private span, so what the model knows of them is not measured")
            return
        pl_module.report.knowledge = asdict(found := self.measure(trainer, pl_module))
        log.info("the model's knowledge of the forget set: %s", found)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: Stage) -> None:
        """Measures, and stops the run if the bounds are not met; the error says what was measured and expected."""
        if not isinstance(pl_module, Unlearn) or trainer.global_step > 0 or pl_module.report.knowledge:
            return  # resumed: the vanilla model has passed already
        m = self.measure(trainer, pl_module)
        pl_module.report.knowledge = asdict(m)
        follows_image = m.follows_image is None or m.follows_image >= self.follows_image
        follows_text = m.follows_text is not None and m.follows_text > self.follows_text
        if m.known < self.knowledge or not follows_image or follows_text:
            raise UserError(
                f"the vanilla model does not know the forget set well enough to unlearn it: measured {m}; "
                f"expected known >= {self.knowledge} (gate.knowledge), follows_image >= {self.follows_image} and "
                f"follows_text <= {self.follows_text} (both gate.*); train it longer, or move the gate's bounds"
            )


def forget_groups(data: Benchmark) -> list[ImageGroup]:
    """Questions about the forget set: those with image, and the text-only ones if such are to be forgotten, too.

    Who was forgotten by an earlier request need not be known any more.
    """
    groups = data.evaluation(Split.FORGET, "image")
    if not groups or not all(person.images for person in data.people(data.forget_ids)):
        groups = [*groups, *data.evaluation(Split.FORGET, "text")]
    forgotten = {person for people in data.earlier for person in people}
    return [group for group in groups if group.person not in forgotten]
