"""Unlearning objectives: one file an idea, each a pure function of answer tokens; no images or templates in here."""

from viker_lightning.ideal import Double, Noised

from .against_relearning import AgainstRelearning
from .around import Around, nested
from .base import Alternative, Batch, Forget, Gold, Irrelevant, Method, Needs, Preparation, Retain, Strangers
from .ceu import CEU
from .dpo import DPO
from .gradient_ascent import GradientAscent
from .gradient_difference import GradientDifference
from .gru import GRU
from .hold import Held
from .idk import IDK
from .jensun import JensUn
from .kl_minimization import KLMinimization
from .kvw import KVW
from .manu import MANU
from .mmunlearner import MMUnlearner
from .npo import NPO
from .pdu import PDU
from .prompt_only import PromptOnly
from .rmu import RMU
from .sam import SAM
from .satimp import SatImp
from .scrub import SCRUB
from .simnpo import SimNPO
from .stranger import Stranger
from .task_vector import TaskVector
from .undial import UNDIAL
from .vgid import VGID
from .viker import ViKeR
from .wga import WGA

NAMES = sorted(
    (n for n, k in globals().items() if isinstance(k, type) and issubclass(k, Method) and k not in (Method, Around)),
    key=lambda name: (not name.isupper(), name),
)
"""The methods there are, as ``--model.method`` takes them."""
