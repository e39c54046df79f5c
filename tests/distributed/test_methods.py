"""Two processes end where one does, by methods that prepare, take whole steps, differ by step, or go elsewhere.

Those that ask about strangers ask about the same ones.
"""

import pytest

from support import forked, matrix
from support.distributed import difference, gradient_difference
from support.weights import random_vanilla
from viker_lightning.runs import CheckpointFile


@pytest.mark.parametrize("case", ["mmunlearner", "dpo", "pdu", "scrub", "stranger", "held", "against_relearning"])
def test_two_processes_are_one(base_folder, tmp_path, case):
    random_vanilla(base_folder, tmp_path / "untied", tied=False)
    matrix.run(case, tmp_path, tmp_path / "one")
    forked.launch(lambda: matrix.run(case, tmp_path, tmp_path / "two", "ddp"), tmp_path / "said")
    one, two = tmp_path / "one" / case, tmp_path / "two" / case
    absolute, relative = difference(one, two)
    assert absolute <= 1e-4 and relative <= 1e-3
    assert gradient_difference(one, two) < 1e-4
    key, first = {"pdu": ("weight", 100.0), "stranger": ("hold", 20.0)}.get(case, ("", 0.0))
    if key:
        weights = [CheckpointFile().load_checkpoint(run / "last.ckpt")["method"][key] for run in (one, two)]
        assert weights[0] != first and weights[1] == pytest.approx(weights[0], rel=1e-4)
