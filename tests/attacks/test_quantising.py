"""Rounding by hand, which weights are rounded, and the attack on the ci benchmark."""

import logging

import pytest
import torch
from torch import nn

from support.families import random_model
from viker_lightning.attacks import Attempt, Quantise, Subject, gather
from viker_lightning.attacks.kinds import quantise as quantising
from viker_lightning.attacks.kinds.quantise import round_layers, round_to_nearest
from viker_lightning.errors import UserError
from viker_lightning.evaluation import predict
from viker_lightning.models import MLLM


def close(found, wanted):
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-6, atol=1e-7)


def test_rounding_by_hand():
    weight = torch.tensor([[7.0, -1.4, 0.6, 0.4, 2.5], [-0.7, 0.05, 0.14, 0.26, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    rows = [[7.0, -1.0, 1.0, 0.0, 2.0], [-0.7, 0.0, 0.1, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]]  # scales 1, .1, 0
    close(round_to_nearest(weight, 4), rows)
    # groups 7 -1.4, .6 .4, 2.5 with scales 1, .6/7, 2.5/7: .4 is 4.67 of .6/7, so 5
    grouped = round_to_nearest(weight[:1], 4, 2)
    close(grouped, [[7.0, -1.0, 0.6, 5 * 0.6 / 7, 2.5]])
    close(round_to_nearest(weight[:1], 4, 5), rows[:1])
    close(round_to_nearest(torch.tensor([[127.0, -3.4, 2.6]]), 8), [[127.0, -3.0, 3.0]])
    close(round_to_nearest(torch.tensor([[1.0, -0.6, 0.4]]), 2), [[1.0, -1.0, 0.0]])


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 0), (4, 32), (4, 24), (2, 64)])
def test_no_value_is_off_by_more_than_half_a_level(bits, group):
    weight = torch.randn(6, 100, generator=torch.Generator().manual_seed(0))
    found = round_to_nearest(weight, bits, group)
    for row, rounded in zip(weight, found, strict=True):
        for part, values in zip(row.split(group or 100), rounded.split(group or 100), strict=True):
            level = part.abs().max() / (2 ** (bits - 1) - 1)
            assert (part - values).abs().max() <= level / 2 + 1e-6
            assert (values / level - (values / level).round()).abs().max() < 1e-4
            assert len(values.unique()) <= 2**bits - 1
    assert not torch.equal(weight, found)
    half = weight.bfloat16()
    assert torch.equal(round_to_nearest(half, bits, group), round_to_nearest(half.float(), bits, group).bfloat16())


def test_only_linear_layers_of_the_language_model_are_rounded():
    mllm, before = random_model("llava"), random_model("llava")
    round_layers(mllm, 4, 32)
    linear = {f"{n}.weight" for n, m in before.base.named_modules() if isinstance(m, nn.Linear)}
    rounded = {n for n in linear if n.startswith("model.language_model.")}
    assert len(rounded) == 2 * 7 and "lm_head.weight" in linear - rounded
    for name, weight in before.base.named_parameters():
        wanted = round_to_nearest(weight, 4, 32) if name in rounded else weight
        assert torch.equal(mllm.base.get_parameter(name), wanted), name
        assert (name in rounded) != torch.equal(wanted, weight), name


def test_a_model_without_linear_layers_is_refused(monkeypatch):
    mllm = random_model("llava")
    monkeypatch.setattr(MLLM, "language_model", property(lambda self: nn.Embedding(2, 2)))
    with pytest.raises(UserError, match=r"^quantise: LlavaForConditionalGeneration has no linear layers[^\n]*$"):
        round_layers(mllm, 4)


def attempt(series, hit, whose="forget"):
    return Attempt(series, None, whose, "a", "Who?", ("Ada",), "", hit)


def test_robustness_is_of_what_was_forgotten():
    attack = Quantise()
    before = [attempt("as asked", hit) for hit in (0, 0, 0, 0, 1)]
    assert attack.numbers([*before, *(attempt("4 bits", hit) for hit in (0, 0, 1, 1, 1))]) == {"Q": 0.5}
    assert attack.numbers([*before, *(attempt("4 bits", 1) for _ in range(5))]) == {"Q": 0.0}
    assert attack.numbers([*before, *(attempt("4 bits", 0) for _ in range(5))]) == {"Q": 1.0}
    kept = [attempt("as asked", 1, "retain"), attempt("4 bits", 1, "retain")]
    some = [*kept, *before, *(attempt("4 bits", hit) for hit in (0, 0, 0, 1, 1))]
    assert attack.numbers(some)["Q"] == pytest.approx(0.75)
    assert attack.numbers(before) == {} == attack.numbers(kept)
    assert attack.numbers([attempt("as asked", 1), attempt("4 bits", 0)]) == {}


@pytest.fixture(scope="module")
def subject(base_folder, tmp_path_factory):
    return Subject("run", str(base_folder), tmp_path_factory.mktemp("attacked"))


def test_every_part_asks_a_rounded_model(data, subject, monkeypatch):
    """All people and photos are asked under every condition; the probabilities are those of a model rounded plainly."""
    monkeypatch.setattr(quantising, "find_spec", lambda name: None)
    material = gather(data)
    attack = Quantise(rounded=((8, 0), (2, 0), (2, 32)))
    assert attack.parts() == ["as asked", "8 bits", "2 bits", "2 bits, groups of 32"]
    found = {part: attack.carry_out(part, subject, material) for part in attack.parts()}
    asked = [(g.person, q.question, str(g.split)) for g in (*material.asked, *material.test) for q in g.vqa]
    assert {split for *_, split in asked} == {"forget", "test", "retain"}
    for part, ones in found.items():
        of_test = len([1 for *_, split in asked if split == "test"])
        series = [part] * (len(ones) - of_test) + [f"{part}, other photos and words"] * of_test
        assert [one.series for one in ones] == series and {one.x for one in ones} == {None}
        whose = {"forget": "forget", "test": "forget", "retain": "retain"}
        assert [(o.person, o.question, o.whose) for o in ones] == [(p, q, whose[s]) for p, q, s in asked]
    mllm = subject.load()
    with torch.no_grad():
        for module in mllm.language_model.modules():
            if isinstance(module, nn.Linear):
                scale = module.weight.abs().max(dim=1, keepdim=True).values
                module.weight.copy_((module.weight / scale).round() * scale)
    wanted = []
    for p in predict(mllm, [*material.asked, *material.test]):
        private = torch.tensor(p.log_probs)[torch.tensor(p.private_tokens)]
        wanted.append(private.exp().mean().item())
    plain = [[one.probability for one in found[part]] for part in ("as asked", "8 bits", "2 bits")]
    assert plain[2] == pytest.approx(wanted, rel=1e-4)
    off = [max(abs(a - b) / a for a, b in zip(plain[0], other, strict=True)) for other in plain[1:]]
    assert 0 < off[0] < off[1]
    assert attack.attacks("2 bits", None) and not attack.attacks("2 bits, other photos and words", None)


def test_what_bitsandbytes_does_is_left_out_where_it_is_missing(data, subject, monkeypatch, caplog):
    monkeypatch.setattr(quantising, "find_spec", lambda name: object())
    attack = Quantise(rounded=())
    library = ["int8 by bitsandbytes", "nf4 by bitsandbytes", "fp4 by bitsandbytes"]
    assert attack.parts() == ["as asked", *library]
    loaded = []
    monkeypatch.setattr(Subject, "load", lambda self, quantize=None: loaded.append(quantize) or "mllm")
    monkeypatch.setattr(quantising, "ask", lambda mllm, groups, series: [series])
    for part in attack.parts():
        assert attack.carry_out(part, subject, gather(data)) == [part, f"{part}, other photos and words"]
    assert loaded == [None, "int8", "nf4", "fp4"] and not caplog.records
    monkeypatch.setattr(quantising, "find_spec", lambda name: None)
    assert attack.parts() == ["as asked"]
    with caplog.at_level(logging.WARNING):
        attack.carry_out("as asked", subject, gather(data))
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "quantise: int8, nf4, fp4 left out: bitsandbytes is not installed; pip install"
    )
    assert Quantise.quick().library == ()


def test_a_part_that_bitsandbytes_cannot_do_is_one_line(data, subject, monkeypatch):
    from viker_lightning.models import loading

    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^quantize=fp4: bitsandbytes is not installed[^\n]*$"):
        Quantise().carry_out("fp4 by bitsandbytes", subject, gather(data))
