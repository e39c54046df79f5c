"""Does it come back? Attacks on an unlearned model, and the same ones on gold and on people who are kept."""

from .attempt import Attempt, attempts, hit
from .base import Attack, ask
from .leak_at_k import Sample
from .material import Material, gather, read_data
from .quantising import Quantise
from .relearning import Relearn
from .subject import Subject

__all__ = [
    "Attack",
    "Attempt",
    "Material",
    "Quantise",
    "Relearn",
    "Sample",
    "Subject",
    "ask",
    "attempts",
    "gather",
    "hit",
    "read_data",
]
