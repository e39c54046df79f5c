"""Unlearning objectives: one file an idea, each a pure function of answer tokens; no images or templates in here."""

from .around import Around, nested
from .base import Batch, Method, Needs, Preparation
from .ceu import CEU
from .dpo import DPO
from .gradient_ascent import GradientAscent
from .gradient_difference import GradientDifference
from .hold import Held
from .idk import IDK
from .jensun import JensUn
from .kl_minimization import KLMinimization
from .npo import NPO
from .pdu import PDU
from .satimp import SatImp
from .scrub import SCRUB
from .simnpo import SimNPO
from .stranger import Stranger
from .undial import UNDIAL
from .vgid import VGID
from .viker import ViKeR
from .wga import WGA

NAMES = [
    "CEU",
    "DPO",
    "IDK",
    "NPO",
    "PDU",
    "SCRUB",
    "UNDIAL",
    "VGID",
    "WGA",
    "GradientAscent",
    "GradientDifference",
    "Held",
    "JensUn",
    "KLMinimization",
    "SatImp",
    "SimNPO",
    "Stranger",
    "ViKeR",
]
"""The methods there are, as ``--model.method`` takes them."""

__all__ = [
    "CEU",
    "DPO",
    "IDK",
    "NAMES",
    "NPO",
    "PDU",
    "SCRUB",
    "UNDIAL",
    "VGID",
    "WGA",
    "Around",
    "Batch",
    "GradientAscent",
    "GradientDifference",
    "Held",
    "JensUn",
    "KLMinimization",
    "Method",
    "Needs",
    "Preparation",
    "SatImp",
    "SimNPO",
    "Stranger",
    "ViKeR",
    "nested",
]
