"""A model that a run left behind, to be asked or evaluated."""

from typing import Literal

from typing_extensions import override

from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, Weights
from viker_lightning.models.families import Family

from .base import Stage
from .engine import Engine
from .finished import load_as_left


class Exported(Stage):
    """The model of a finished run, by its weights alone: for predict, validate and test.

    Args:
        source: a run folder, an ``adapter/`` (which says what model it was made on), a folder with full weights, or a
            hub id.
        base: the model an adapter was made on, where it is no longer where the adapter says.
        revision: branch, tag or commit of a hub id.
        dtype: of the weights.
        trust_remote_code: whether code that comes with the weights may run.
        family: the model's family, by class path, where this package has none for it; docs/model.md shows one.
        engine: budgets, and what is kept where.
    """

    def __init__(
        self,
        source: str,
        base: str | None = None,
        revision: str | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        trust_remote_code: bool = False,
        family: Family | None = None,
        engine: Engine = Engine(),  # noqa: B008 - jsonargparse reads the default
    ) -> None:
        super().__init__(0.0, engine=engine)
        self.source, self.base = source, base
        self.weights = Weights(dtype, None, revision, trust_remote_code, family)

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            raise UserError("model: Exported is only asked and evaluated; use Finetune or Unlearn to train")

    @override
    def load_mllm(self) -> MLLM:
        self.base_weights = self.source
        return load_as_left(self.source, self.weights, self.base)
