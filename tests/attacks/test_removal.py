"""With its adapter taken off a model is the one before unlearning; merged weights can have an instruction at most."""

import json

import pytest
import torch

from support.weights import random_adapter, random_vanilla
from viker_lightning.attacks import Subject, ask, gather
from viker_lightning.attacks.kinds.adapter import RemoveAdapter
from viker_lightning.models import MLLM, Lora


def test_what_is_left_is_the_model_before(data, base_folder, tmp_path):
    vanilla = random_vanilla(base_folder, tmp_path / "vanilla")
    run = tmp_path / "run"
    random_adapter(vanilla, run / "adapter", std=0.3)
    (run / "results.json").write_text(json.dumps({}))
    attack, material = RemoveAdapter.quick(), gather(data, people=1)
    part, dropped = attack.parts()
    found = attack.carry_out(part, Subject("run", str(run), run), material)
    assert attack.carry_out(dropped, Subject("run", str(run), run), material) == []
    asked = sum(len(g.vqa) for g in material.asked)
    clean, off = found[:asked], found[asked:]
    assert {one.series for one in clean} == {"as asked"} and {one.series for one in off} == {part}
    before = ask(MLLM.load(vanilla).eval().requires_grad_(False), material.asked, part)
    assert [(o.answer, o.hit) for o in off] == [(o.answer, o.hit) for o in before]
    one, two = (torch.tensor([o.probability for o in some]) for some in (off, before))
    torch.testing.assert_close(one, two)
    assert not torch.allclose(torch.tensor([o.probability for o in clean]), two)


def test_merged_weights_are_safe(data, base_folder, tmp_path):
    subject = Subject("gold", str(base_folder), tmp_path)
    for part in RemoveAdapter().parts():
        assert RemoveAdapter().carry_out(part, subject, gather(data, people=1)) == []


@pytest.mark.parametrize("merged", [False, True])
def test_an_instruction_is_dropped_even_from_merged_weights(data, base_folder, tmp_path, merged):
    vanilla, run, material = random_vanilla(base_folder, tmp_path / "vanilla"), tmp_path / "run", gather(data, people=1)
    mllm = MLLM.load(vanilla)
    if not merged:
        mllm.adapt(Lora(r=1))
    mllm.instruct("Say nothing about anybody.")
    (mllm.save if merged else mllm.save_adapter)(run / ("model" if merged else "adapter"))
    (run / "results.json").write_text(json.dumps({}))
    attack, subject = RemoveAdapter(), Subject("run", str(run), run)
    found = {part: attack.carry_out(part, subject, material) for part in attack.parts()}
    assert len(found["adapter taken off"]) == (0 if merged else len(found["instruction dropped"]) * 2)
    assert {one.series for one in found["instruction dropped"]} == {"instruction dropped", *["as asked"] * merged}
    before = [o.probability for o in ask(MLLM.load(vanilla).eval().requires_grad_(False), material.asked, "")]
    for part, ones in found.items():
        by = {series: [o.probability for o in ones if o.series == series] for series in ("as asked", part)}
        assert not by[part] or by[part] == pytest.approx(before, rel=1e-4)
        assert not by["as asked"] or by["as asked"] != pytest.approx(before, rel=1e-2)
