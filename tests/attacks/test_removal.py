"""With its adapter taken off a model is the one before unlearning; merged weights have none to take off."""

import json

import torch

from support.weights import random_adapter, random_vanilla
from viker_lightning.attacks import Subject, ask, gather
from viker_lightning.attacks.kinds.adapter import RemoveAdapter
from viker_lightning.models import MLLM


def test_what_is_left_is_the_model_before(data, base_folder, tmp_path):
    vanilla = random_vanilla(base_folder, tmp_path / "vanilla")
    run = tmp_path / "run"
    random_adapter(vanilla, run / "adapter", std=0.3)
    (run / "results.json").write_text(json.dumps({}))
    attack, material = RemoveAdapter.quick(), gather(data, people=1)
    (part,) = attack.parts()
    found = attack.carry_out(part, Subject("run", str(run), run), material)
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
    assert RemoveAdapter().carry_out("adapter taken off", subject, gather(data, people=1)) == []
