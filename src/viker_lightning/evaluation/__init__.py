"""Tasks and protocols: predictions, and numbers from predictions. One path for fit, validate, test and reload."""

from .knowledge import Knowledge, measure_knowledge
from .predict import MAX_NEW_TOKENS, Prediction, in_order, predict
from .summary import DIRECTIONS, summarise

__all__ = [
    "DIRECTIONS",
    "MAX_NEW_TOKENS",
    "Knowledge",
    "Prediction",
    "in_order",
    "measure_knowledge",
    "predict",
    "summarise",
]
