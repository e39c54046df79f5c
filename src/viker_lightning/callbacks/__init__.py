"""What happens around training: evaluation, the stage-1 gate, provenance, audits. Numbers come from evaluation/."""

from .answers import Answers
from .checkpoint import Checkpoint, Stopped
from .evaluation import Evaluation
from .folder import finished, keep_metrics, last_checkpoint, set_aside
from .gate import KnowledgeGate
from .provenance import Provenance, SaveConfig
from .similarity import SimilarityAudit

__all__ = [
    "Answers",
    "Checkpoint",
    "Evaluation",
    "KnowledgeGate",
    "Provenance",
    "SaveConfig",
    "SimilarityAudit",
    "Stopped",
    "finished",
    "keep_metrics",
    "last_checkpoint",
    "set_aside",
]
