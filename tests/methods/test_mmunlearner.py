"""MMUnlearner: Fisher information, mask and masked gradient in plain lines."""

from dataclasses import replace

import pytest
import torch

from support.preparing import ce, prepare, trained
from viker_lightning.errors import UserError
from viker_lightning.methods import Batch, MMUnlearner
from viker_lightning.methods import mmunlearner as module
from viker_lightning.methods.mmunlearner import fisher, salient


def slopes(loss, mllm):
    return dict(zip(trained(mllm), torch.autograd.grad(loss, list(trained(mllm).values())), strict=True))


def plain_fisher(mllm, groups):
    """The mean over questions of squared gradients, a pass a question."""
    single = [[replace(group, vqa=(vqa,))] for group in groups for vqa in group.vqa]
    squares = [{name: s.square() for name, s in slopes(ce(mllm, one), mllm).items()} for one in single]
    return {name: sum(one[name] for one in squares) / len(squares) for name in squares[0]}


def test_fisher_of_one_question_is_exact(mllm, groups):
    one = [replace(groups[0], vqa=groups[0].vqa[:1])]
    found, wanted = fisher(prepare(mllm, MMUnlearner(), forget=one), "forget"), plain_fisher(mllm, one)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-10)


def test_fisher_is_of_questions(mllm, groups, monkeypatch):
    """W3: on average over draws the mean of the questions' squares; there it is that of batches, which is less."""
    monkeypatch.setattr(module, "DRAWS", 100)
    found = fisher(prepare(mllm, MMUnlearner(), forget=groups), "forget")
    wanted, whole = plain_fisher(mllm, groups), slopes(ce(mllm, groups), mllm)
    trace = {n: float(sum(v.sum() for v in one.values())) for n, one in (("found", found), ("wanted", wanted))}
    assert trace["found"] == pytest.approx(trace["wanted"], rel=0.15)
    assert sum(float(s.square().sum()) for s in whole.values()) < 0.7 * trace["wanted"]
    one, other = (torch.cat([v.flatten() for v in some.values()]) for some in (found, wanted))
    assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.9


def test_parts_do_not_change_the_fisher_information(mllm, groups):
    run = prepare(mllm, MMUnlearner(), forget=groups)
    whole = fisher(run, "forget")
    mllm.set_budgets(140, 200)
    for name, value in fisher(run, "forget").items():
        torch.testing.assert_close(value, whole[name], rtol=1e-2, atol=1e-3 * float(whole[name].max()))


def test_the_mask():
    forget, retain = {"w": torch.tensor([4.0, 1.0, 0.0, 2.0])}, {"w": torch.tensor([1.0, 4.0, 0.0, 2.0])}
    assert salient(forget, retain, 1.0)["w"].tolist() == [True, False, True, True]
    assert salient(forget, retain, 2.0)["w"].tolist() == [True, False, False, False]


def test_the_gradient(mllm, groups):
    """Forget: masked; retain: as it is."""
    forget, retain = groups[:1], groups[1:]
    method = MMUnlearner(threshold=1.5, retain_weight=3.0)
    method.before_training(prepare(mllm, method, forget=forget, retain=retain))
    shares = [float(mask.float().mean()) for mask in method.mask.values()]
    assert 0 < min(shares) < max(shares) < 1
    f, r = slopes(ce(mllm, forget), mllm), slopes(ce(mllm, retain), mllm)
    tokens = {name: mllm.answer_tokens(mllm.pack(some)) for name, some in (("forget", forget), ("retain", retain))}
    terms = method.loss(Batch(tokens))
    torch.testing.assert_close(terms["loss"], 3 * terms["retain_ce"] - terms["forget_ce"])
    terms["loss"].backward()
    method.before_optimizer_step(mllm)
    for name, p in trained(mllm).items():
        wanted = 3 * r[name] - method.mask[name] * f[name]
        assert (p.grad - wanted).norm() < 1e-4 * wanted.norm(), name


def test_a_masked_weight_takes_nothing_of_the_norm(mllm, groups):
    """W4: there a gradient is clipped before it is masked; here what is clipped is what moves the weights."""
    method = MMUnlearner(retain_weight=0.0)
    method.before_training(prepare(mllm, method, forget=groups[:1], retain=groups[1:]))
    tokens = {name: mllm.answer_tokens(mllm.pack(groups)) for name in ("forget", "retain")}
    method.loss(Batch(tokens))["loss"].backward()
    method.before_optimizer_step(mllm)
    torch.nn.utils.clip_grad_norm_(trained(mllm).values(), 1e-3)
    norm = torch.cat([p.grad.flatten() for p in trained(mllm).values()]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)
    whole = slopes(ce(mllm, groups), mllm)
    kept = sum(float((method.mask[name] * s).square().sum()) for name, s in whole.items())
    assert kept < 0.9 * sum(float(s.square().sum()) for s in whole.values()), "much is masked"


def test_a_resumed_run_takes_its_mask_from_the_checkpoint(mllm, groups):
    method = MMUnlearner()
    method.before_training(prepare(mllm, method, resumed=True))
    assert method.mask == {}
    method.load_state_dict({"mask": {"w": torch.tensor([True])}})
    assert method.state_dict() == {"mask": method.mask} and method.mask["w"].all()


@pytest.mark.parametrize("wrong", [{"threshold": 0}, {"retain_weight": -1}])
def test_what_is_refused(wrong):
    with pytest.raises(UserError, match=r"MMUnlearner: threshold=.* must be > 0"):
        MMUnlearner(**wrong)
