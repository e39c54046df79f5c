"""Removal of what lies beside the weights: the trivial attack on whoever hands on an adapter, or an instruction."""

from dataclasses import dataclass

from typing_extensions import override

from viker_lightning.attacks.attempt import Attempt
from viker_lightning.attacks.base import Attack, ask
from viker_lightning.attacks.material import Material
from viker_lightning.attacks.subject import Subject
from viker_lightning.models.instruction import saved_instruction
from viker_lightning.storage.runs import weights_folder

DROPPED = "instruction dropped"


@dataclass(frozen=True)
class RemoveAdapter(Attack):
    """Takes the adapter off, or the instruction, as anybody can who is given one.

    What is left of an adapter is the model before unlearning. Nothing is done to a model without an adapter, as merged
    weights are: whoever hands these on is safe from it. An instruction (``PromptOnly``) cannot be merged.
    """

    name = "adapter"
    about = "takes the adapter off, or the instruction, if the model is handed on with one"
    source = "this project; PEFT's disable_adapter"
    says = False  # who speaks then is the model before unlearning
    conditions = ("adapter taken off", DROPPED)

    @override
    def carry_out(self, part: str, subject: Subject, material: Material) -> list[Attempt]:
        if part == DROPPED:
            if not saved_instruction(subject.adapter or weights_folder(subject.source)):
                return []
            told = subject.load()
            asked = [] if subject.adapter else ask(told, material.asked, self.clean)  # the other part has asked so
            told.instruct("")
            return asked + ask(told, material.asked, part)
        mllm = subject.load_with_adapter()
        if mllm is None:
            return []
        clean = ask(mllm, material.asked, self.clean)
        with mllm.frozen():
            return clean + ask(mllm, material.asked, part)
