"""What happens around training: evaluation, the stage-1 gate, provenance, audits. Numbers come from evaluation/."""

from .checkpoint import Checkpoint, Signals, Stopped
from .collapse_guard import CollapseGuard
from .evaluation import Evaluation
from .for_scripts import trainer
from .knowledge_gate import KnowledgeGate
from .predict_answers import Answers
from .provenance import Provenance, SaveConfig
from .report import Report
from .selection import Selection
from .similarity_audit import SimilarityAudit
from .terminal_progress import TerminalProgress
from .wandb_dashboard import Dashboard
