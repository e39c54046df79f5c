"""Tasks and protocols: predictions, and numbers from predictions. One path for fit, validate, test and reload."""

from viker_lightning.metrics.prediction import Prediction

from .fluency import note_form, score_texts
from .knowledge import Knowledge, measure_health, measure_knowledge
from .predict import MAX_NEW_TOKENS, in_order, predict
from .protocols import CORRECTED, Protocol, PublishedCLEAR, PublishedMLLMU, protocol_of
from .summary import SummaryMetric, by_person, distances, person_sums, summarise

__all__ = [
    "CORRECTED",
    "MAX_NEW_TOKENS",
    "Knowledge",
    "Prediction",
    "Protocol",
    "PublishedCLEAR",
    "PublishedMLLMU",
    "SummaryMetric",
    "by_person",
    "distances",
    "in_order",
    "measure_health",
    "measure_knowledge",
    "note_form",
    "person_sums",
    "predict",
    "protocol_of",
    "score_texts",
    "summarise",
]
