"""What happens around training: evaluation, the stage-1 gate, provenance, audits. Numbers come from evaluation/."""

from .evaluation import Evaluation
from .gate import KnowledgeGate
from .provenance import Provenance, SaveConfig
from .similarity import SimilarityAudit

__all__ = ["Evaluation", "KnowledgeGate", "Provenance", "SaveConfig", "SimilarityAudit"]
