"""In which order callbacks are called, and why: each hook goes through them from the first to the last."""

from __future__ import annotations

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar

from viker_lightning.progress import silent

from .checkpoint import Checkpoint, Signals
from .collapse_guard import CollapseGuard
from .evaluation import Evaluation
from .knowledge_gate import KnowledgeGate
from .predict_answers import Answers
from .provenance import Provenance
from .report import Report
from .similarity_audit import SimilarityAudit
from .terminal_progress import TerminalProgress
from .wandb_dashboard import Dashboard

FIRST: tuple[type[Callback], ...] = (
    Signals,  # a signal that comes while another one evaluates must find Checkpoint listening
    TerminalProgress,  # takes its line away before an evaluation shows its own
)
"""Before any callback of a user's."""

OPTIONS: dict[str, type[Callback]] = {
    "audit": SimilarityAudit,  # looks at pictures only, so before anything is asked or trained
    "gate": KnowledgeGate,  # stops a run before it is evaluated; Evaluation writes what it reports into results.json
    "guard": CollapseGuard,  # stops a run, or puts good weights back, before Evaluation asks and Checkpoint saves
    "evaluation": Evaluation,  # writes answers and numbers, which all that follow read
    "answers": Answers,
    "report": Report,  # reads the run folder as Evaluation left it
    "checkpoint": Checkpoint,  # Lightning moves it to the very end: what all others have measured is saved with it
}
"""Those with options, by name of the option."""

LAST: tuple[type[Callback], ...] = (
    Provenance,  # records which weights audit and evaluation used
    Dashboard,  # shows W&B the run folder as Evaluation and Report left it
)
"""After those; Lightning adds SaveConfig and moves Checkpoint behind all."""


def with_first(given: list[Callback] | Callback | None, shown: bool | None) -> list[Callback]:
    """The callbacks that a user gives, with ours before them.

    Args:
        given: in the config.
        shown: ``trainer.enable_progress_bar``. Ours is one unless a user's is, or nothing is to be said.
    """
    given = given if isinstance(given, list) else [given] if given else []
    bar = shown is not False and not silent() and not any(isinstance(callback, ProgressBar) for callback in given)
    return [*(kind() for kind in FIRST if bar or kind is not TerminalProgress), *given]
