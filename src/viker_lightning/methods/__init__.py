"""Unlearning objectives: one file an idea, each a pure function of answer tokens; no images or templates in here."""

from .base import Batch, Method
from .gradient_ascent import GradientAscent
from .gradient_difference import GradientDifference
from .idk import IDK
from .kl_minimization import KLMinimization
from .npo import NPO
from .viker import ViKeR

__all__ = ["IDK", "NPO", "Batch", "GradientAscent", "GradientDifference", "KLMinimization", "Method", "ViKeR"]
