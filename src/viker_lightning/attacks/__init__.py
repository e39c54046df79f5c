"""Does it come back? Attacks on an unlearned model, and the same ones on gold and on people who are kept."""

from .asking import AskOtherwise
from .attempt import Attempt, attempts, hit
from .base import Attack, ask
from .choosing import ChooseSpan
from .leak_at_k import Sample
from .lens import Lens
from .material import Material, gather, read_data
from .members import Membership
from .noise import UniversalNoise
from .probe import Probe
from .quantising import Quantise
from .relearning import Relearn
from .removal import RemoveAdapter
from .showing import ShowOtherwise
from .subject import Subject

__all__ = [
    "AskOtherwise",
    "Attack",
    "Attempt",
    "ChooseSpan",
    "Lens",
    "Material",
    "Membership",
    "Probe",
    "Quantise",
    "Relearn",
    "RemoveAdapter",
    "Sample",
    "ShowOtherwise",
    "Subject",
    "UniversalNoise",
    "ask",
    "attempts",
    "gather",
    "hit",
    "read_data",
]
