"""Every method of the package, with arguments where it needs some or has settings that compute something else."""

import functools
from dataclasses import replace

import pytest

from viker_lightning import methods
from viker_lightning.data.datasets.mllmu import MLLMU
from viker_lightning.methods import (
    CEU,
    DPO,
    GRU,
    KVW,
    MANU,
    NPO,
    PDU,
    RMU,
    SAM,
    UNDIAL,
    VGID,
    AgainstRelearning,
    Around,
    GradientDifference,
    Held,
    Method,
    MMUnlearner,
    SimNPO,
    Stranger,
    TaskVector,
    ViKeR,
)
from viker_lightning.methods.elsewhere import Elsewhere

ARGUMENTS = {
    CEU: [dict, lambda: {"skip": 0, "retain_weight": 1.0}],
    DPO: [dict, lambda: {"alternative": "own", "stranger_count": 2, "retain_weight": 0.0}],
    PDU: [lambda: {"bound": 0.5, "retain_weight": 2.0, "rate": 0.5}],
    UNDIAL: [dict, lambda: {"retain_weight": 1.0}],
    VGID: [dict, lambda: {"noise": 0.3, "instruction": ""}, lambda: {"noise": 0.0}],
    AgainstRelearning: [
        lambda: {"method": NPO()},
        lambda: {"method": Stranger(k=2), "steps": 1},
        lambda: {"method": DPO(), "share": 1.0},
    ],
    Around: [lambda: {"method": NPO()}],
    Elsewhere: [lambda: {"method": NPO()}],
    GRU: [lambda: {"method": NPO()}, lambda: {"method": GradientDifference()}],
    Held: [
        lambda: {"method": NPO(), "stranger_count": 2},
        lambda: {"method": GradientDifference(), "stranger_count": 2, "bound": 0.01},
        lambda: {"method": ViKeR(lam=2.0, k=2), "stranger_count": 2, "rehearsal": True},
    ],
    SimNPO: [dict, lambda: {"beta": 0.1, "delta": 1.0, "retain_weight": 0.0}],
    KVW: [lambda: {"rounds": 2, "first_layer": 0, "last_layer": -1}],
    RMU: [lambda: {"layer": 1}, lambda: {"layer": -1, "steering": 20.0, "retain_weight": 0.5}],
    SAM: [lambda: {"method": NPO()}, lambda: {"method": GradientDifference(), "rho": 0.1}],
    Stranger: [
        lambda: {"k": 2},
        lambda: {"k": 2, "bound": 0.01, "hold": 1.0},
        lambda: {"k": 2, "rehearsal": True, "retain_weight": 0.5},
        lambda: {"k": 2, "doubles": 1},
    ],
    TaskVector: [lambda: {"steps": 2}],
    ViKeR: [
        lambda: {"lam": 2.0, "k": 2},
        lambda: {"lam": 2.0, "k": 2, "direction": "reverse", "retain_weight": 1.0},
        lambda: {"k": 2, "ascent": "hinge", "per": "question"},
        lambda: {"lam": 2.0, "k": 3, "doubles": 2},
    ],
}
"""Arguments of methods that need some, or have settings that compute something else."""

PREPARE = (KVW, MANU, MMUnlearner, TaskVector)
"""These pass whole streams before the first step, and are given few questions."""


class Few(MLLMU):
    """Two people a stream, each with four photos and sixteen questions."""

    @property
    def streams(self):
        whole = super().streams.items()
        return {name: [replace(p, images=p.images[:4], vqa=p.vqa[:16]) for p in people[:2]] for name, people in whole}


@functools.cache
def few():
    module = Few("mini/ci", batch_size=16, questions_per_image=4)
    module.prepare_data()
    module.setup()
    return module


def subclasses(kind):
    return [kind, *(more for one in kind.__subclasses__() for more in subclasses(one))]


EVERY = sorted(
    {one for one in subclasses(Method)[1:] if one.__module__.startswith(f"{methods.__name__}.")},
    key=lambda one: one.__name__,
)
CASES = [(one, number) for one in EVERY for number in range(len(ARGUMENTS.get(one, [None])))]


def make(kind, number):
    arguments = ARGUMENTS[kind][number]() if kind in ARGUMENTS else {}
    try:
        return kind(**arguments)
    except TypeError as error:
        pytest.fail(f"{kind.__name__} needs arguments ({error}): add some to ARGUMENTS of {__file__}")
