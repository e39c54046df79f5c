"""Tasks and protocols: predictions, and numbers from predictions. One path for fit, validate, test and reload."""

from viker_lightning.metrics.prediction import Prediction

from .directions import DIRECTIONS, better
from .fluency import note_form, score_texts
from .gold import compare, distances
from .health import measure_health
from .knowledge import Knowledge, measure_knowledge
from .people import by_person
from .predict import MAX_NEW_TOKENS, in_order, predict
from .protocols import CORRECTED, Protocol, PublishedCLEAR, PublishedMLLMU, protocol_of
from .summary import OVERALL, summarise
from .truth import ratios

__all__ = [
    "CORRECTED",
    "DIRECTIONS",
    "MAX_NEW_TOKENS",
    "OVERALL",
    "Knowledge",
    "Prediction",
    "Protocol",
    "PublishedCLEAR",
    "PublishedMLLMU",
    "better",
    "by_person",
    "compare",
    "distances",
    "in_order",
    "measure_health",
    "measure_knowledge",
    "note_form",
    "predict",
    "protocol_of",
    "ratios",
    "score_texts",
    "summarise",
]
