"""Tasks and protocols: predictions, and numbers from predictions. One path for fit, validate, test and reload."""

from viker_lightning.metrics.prediction import Prediction

from .answering import in_order, predict
from .directions import DIRECTIONS, better
from .fluency import note_form, score_texts
from .gold import compare, distances
from .health import measure_health
from .knowledge import Knowledge, measure_knowledge
from .people import by_person
from .protocols import CORRECTED, ClosedTask, FewShotQuestion, Protocol, Task
from .summary import OVERALL, summarise
from .truth import ratios

__all__ = [
    "CORRECTED",
    "DIRECTIONS",
    "OVERALL",
    "ClosedTask",
    "FewShotQuestion",
    "Knowledge",
    "Prediction",
    "Protocol",
    "Task",
    "better",
    "by_person",
    "compare",
    "distances",
    "in_order",
    "measure_health",
    "measure_knowledge",
    "note_form",
    "predict",
    "ratios",
    "score_texts",
    "summarise",
]
