"""Unlearning objectives: one file an idea, each a pure function of answer tokens; no images or templates in here."""

from .base import Batch, Method
from .gradient import GradientAscent, GradientDifference, KLMinimization
from .idk import IDK
from .npo import NPO
from .viker import ViKeR

__all__ = ["IDK", "NPO", "Batch", "GradientAscent", "GradientDifference", "KLMinimization", "Method", "ViKeR"]
