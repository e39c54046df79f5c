"""Does it come back? Attacks on an unlearned model, and the same ones on gold and on people who are kept."""

from .attempt import Attempt, attempts, hit
from .base import Attack, ask
from .kinds.adapter import RemoveAdapter
from .kinds.ask import AskOtherwise
from .kinds.choose import ChooseSpan
from .kinds.depth import Depth
from .kinds.difference import Difference
from .kinds.lens import Lens
from .kinds.membership import Membership
from .kinds.noise import UniversalNoise
from .kinds.probe import Probe
from .kinds.quantise import Quantise
from .kinds.relearn import Relearn
from .kinds.sample import Sample
from .kinds.show import ShowOtherwise
from .material import Material, gather
from .subject import Subject
