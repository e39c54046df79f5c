"""What happens around training: evaluation, the stage-1 gate, provenance, audits. Numbers come from evaluation/."""

from .answers import Answers
from .audit import SimilarityAudit
from .checkpoint import Checkpoint, Signals, Stopped
from .dashboard import Dashboard
from .evaluation import Evaluation
from .guard import CollapseGuard
from .knowledge_gate import KnowledgeGate
from .progress import TerminalProgress
from .provenance import Provenance, SaveConfig
from .report import Report
from .selection import Selection

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
]
