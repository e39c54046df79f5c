"""What happens around training: evaluation, the stage-1 gate, provenance, audits. Numbers come from evaluation/."""

from .answers import Answers
from .checkpoint import Checkpoint, Signals, Stopped
from .dashboard import Dashboard
from .evaluation import Evaluation
from .folder import finished, first_process, keep_metrics, last_checkpoint, lock, set_aside, wandb_run
from .gate import KnowledgeGate
from .guard import CollapseGuard
from .progress import TerminalProgress
from .provenance import Provenance, SaveConfig
from .report import Report
from .selection import Selection
from .similarity import SimilarityAudit

__all__ = [
    "Answers",
    "Checkpoint",
    "CollapseGuard",
    "Dashboard",
    "Evaluation",
    "KnowledgeGate",
    "Provenance",
    "Report",
    "SaveConfig",
    "Selection",
    "Signals",
    "SimilarityAudit",
    "Stopped",
    "TerminalProgress",
    "finished",
    "first_process",
    "keep_metrics",
    "last_checkpoint",
    "lock",
    "set_aside",
    "wandb_run",
]
