"""Removal of the adapter: the trivial attack on whoever hands on an adapter instead of merged weights."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from viker_lightning.attacks.attempt import Attempt
from viker_lightning.attacks.base import Attack, ask
from viker_lightning.attacks.material import Material
from viker_lightning.attacks.subject import Subject


@dataclass(frozen=True)
class RemoveAdapter(Attack):
    """Takes the adapter off, as anybody can who is given one: what is left is the model before unlearning.

    Nothing is done to a model without an adapter, as merged weights are: whoever hands these on is safe from it.
    """

    name = "adapter"
    about = "takes the adapter off, if the model is handed on with one"
    source = "this project; PEFT's disable_adapter"
    says = False  # who speaks then is the model before unlearning

    @override
    def parts(self) -> list[str]:
        return ["adapter taken off"]

    @override
    def carry_out(self, part: str, subject: Subject, material: Material) -> list[Attempt]:
        mllm = subject.load_with_adapter()
        if mllm is None:
            return []
        clean = ask(mllm, material.asked, self.clean)
        with mllm.frozen():
            return clean + ask(mllm, material.asked, part)
