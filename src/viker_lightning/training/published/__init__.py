"""What the code of a benchmark's authors does (``data.protocol: published``), defects included: a file a benchmark."""

from viker_lightning.data.datasets import CLEAR, MLLMU, Benchmark
from viker_lightning.errors import UserError
from viker_lightning.evaluation import CORRECTED, Protocol

from .base import Published
from .clear import PublishedCLEAR
from .mllmu import PublishedKLMinimization, PublishedMLLMU, PublishedNPO


def authors_of(data: Benchmark) -> Published | None:
    """What the authors of a benchmark do; ``None`` under ``data.protocol: corrected``.

    Raises:
        UserError: if this room has no file of the benchmark.
    """
    if data.protocol == "corrected":
        return None
    if isinstance(data, MLLMU):
        return PublishedMLLMU(data)
    if isinstance(data, CLEAR):
        return PublishedCLEAR(data)
    raise UserError(
        f"data.protocol: {type(data).__name__} says that it is published, but training/published does not have "
        "it; set 'corrected'"
    )


def protocol_of(data: Benchmark) -> Protocol:
    """How the questions of a benchmark are put and its answers read, as ``data.protocol`` says."""
    return authors_of(data) or CORRECTED
