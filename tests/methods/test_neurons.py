"""Activations that methods see which edit weights: those of every question by itself."""

import pytest
import torch

from support.preparing import of_each_question, prepare, whole_model
from viker_lightning.errors import UserError
from viker_lightning.methods import KVW, MANU
from viker_lightning.methods.neurons import activations, added, down_projections
from viker_lightning.models import MLLM, Lora


@pytest.fixture(scope="module")
def mllm(base_folder):
    return whole_model(base_folder)


@pytest.mark.parametrize("tokens", [None, 200])
def test_activations_are_those_of_each_question_alone(mllm, groups, tokens):
    """W8: neither padding nor images, whatever shares a sequence or a pass; where prompts are shared, too."""
    method = MANU()
    mllm.set_budgets(*((4096, 16384) if tokens is None else (140, tokens)))
    wanted = of_each_question(mllm, groups)
    run = prepare(mllm, method, forget=groups)
    parts = list(activations(run, down_projections(run, "MANU"), "forget", ""))
    assert (len(parts) == 1) == (tokens is None)
    for layer, z in enumerate(wanted):
        found = torch.cat([part[layer] for part in parts])
        order = torch.argsort(found[:, 0]), torch.argsort(z[:, 0])
        torch.testing.assert_close(found[order[0]], z[order[1]], rtol=1e-3, atol=1e-4)
    mllm.set_budgets(4096, 16384)


def test_sums_are_over_all_parts(mllm, groups):
    run = prepare(mllm, MANU(), forget=groups)
    matrices = down_projections(run, "MANU")
    mllm.set_budgets(140, 200)
    found = added(run, matrices, "forget", "", lambda z: z.sum(0)[None])
    mllm.set_budgets(4096, 16384)
    for sums, z in zip(found, of_each_question(mllm, groups), strict=True):
        torch.testing.assert_close(sums[0], z.double().sum(0), rtol=1e-3, atol=1e-3)


def test_an_adapter_is_refused(base_folder, groups):
    adapted = MLLM.load(base_folder)
    adapted.adapt(Lora())
    for kind in (KVW, MANU):
        with pytest.raises(UserError, match=rf"^model\.method: {kind.__name__} edits .*; set model\.lora to null$"):
            kind().before_training(prepare(adapted, kind(), forget=groups, retain=groups))
