"""A method around another one."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from viker_lightning.errors import UserError

from .base import Batch, Method, Preparation, check_streams


def nested(method: Method) -> list[Method]:
    """A method and those inside it, from the outside in."""
    return [method, *(one for value in vars(method).values() if isinstance(value, Method) for one in nested(value))]


class Around(Method):
    """Does what another method does; a subclass changes its loss or its gradients.

    It declares what the other one does. A subclass that needs more sets it after ``super().__init__(method)``.

    Args:
        method: the method inside.
    """

    def __init__(self, method: Method) -> None:
        check_streams(method)  # now, so that a message names that one
        self.method = method
        for name in Method.__annotations__:
            setattr(self, name, getattr(method, name))

    def check_inside(self, reasons: Mapping[str, bool]) -> None:
        """Refuses a method inside that takes no steps, or not all streams in each, or for one of the reasons given."""
        turns = {"its streams take turns (in_passes)": self.method.in_passes}
        for reason, holds in {**turns, "it takes no steps": not self.method.takes_steps, **reasons}.items():
            if holds:
                inside = f"{type(self).__name__}: {type(self.method).__name__} cannot be inside"
                raise UserError(f"{inside}, for {reason}; name another method")

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return self.method.loss(batch)

    @override
    def logged(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.method.logged(terms)

    @override
    def before_training(self, run: Preparation) -> None:
        self.method.before_training(run)

    @override
    def before_optimizer_step(self, model: nn.Module) -> None:
        self.method.before_optimizer_step(model)

    @override
    def after_step(self, terms: dict[str, Tensor]) -> None:
        self.method.after_step(terms)

    @override
    def state_dict(self) -> dict[str, Any]:
        return self.method.state_dict()

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state)
