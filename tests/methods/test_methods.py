"""Each objective against a few plain lines on random tokens."""

import pytest
import torch
import torch.nn.functional as F

from viker_lightning.errors import UserError
from viker_lightning.ideal import reduce_distribution, reference_of
from viker_lightning.methods import IDK, NPO, Batch, GradientAscent, GradientDifference, KLMinimization, ViKeR
from viker_lightning.methods.base import Forget, Irrelevant, Retain
from viker_lightning.models import AnswerTokens

QUESTION = torch.tensor([0, 0, 0, 1, 2, 2])


@pytest.fixture
def head():
    torch.manual_seed(0)
    return torch.nn.Linear(5, 11, bias=False).requires_grad_(False)


def tokens(head, seed):
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(6, 5, generator=g).requires_grad_()
    labels = torch.randint(0, 11, (6,), generator=g)
    return AnswerTokens(hidden, labels, QUESTION, torch.zeros(6, dtype=torch.bool), 3, head)


def ce(t):
    return F.cross_entropy(t.head(t.hidden), t.labels)


def test_gradient_ascent(head):
    t = tokens(head, 1)
    torch.testing.assert_close(GradientAscent().loss(Batch({"forget": t}))["loss"], -ce(t))


def test_gradient_difference(head):
    f, r = tokens(head, 1), tokens(head, 2)
    torch.testing.assert_close(
        GradientDifference(2.0).loss(Batch({"forget": f, "retain": r}))["loss"], 2 * ce(r) - ce(f)
    )


def test_kl_minimization(head):
    f, r, vanilla = tokens(head, 1), tokens(head, 2), tokens(head, 3)
    vanilla.labels = r.labels
    p = head(vanilla.hidden).softmax(-1)
    kl = F.kl_div(head(r.hidden).log_softmax(-1), p, reduction="batchmean")
    terms = KLMinimization(0.5).loss(Batch({"forget": f, "retain": r}, {("retain", "own"): reference_of(vanilla)}))
    torch.testing.assert_close(terms["loss"], 0.5 * kl - ce(f))
    torch.testing.assert_close(terms["forget_ce"], ce(f))


def test_npo_sums_tokens_per_question(head):
    f, vanilla = tokens(head, 1), tokens(head, 3)
    vanilla.labels = f.labels
    mine, theirs = (head(t.hidden).log_softmax(-1)[torch.arange(6), f.labels] for t in (f, vanilla))
    ratios = [(mine - theirs)[QUESTION == q].sum() for q in range(3)]
    wanted = sum(-(2 / 0.3) * torch.log(torch.sigmoid(-0.3 * r)) for r in ratios) / 3
    loss = NPO(beta=0.3).loss(Batch({"forget": f}, {("forget", "own"): reference_of(vanilla)}))["loss"]
    torch.testing.assert_close(loss, wanted)


def test_npo_keeps_the_retain_set(head):
    f, r = tokens(head, 1), tokens(head, 2)
    reference = reference_of(tokens(head, 1))
    alone, both = NPO(beta=0.3), NPO(beta=0.3, retain_weight=4.0)
    assert alone.needs == (Forget(own="log_prob"),) and both.needs == (*alone.needs, Retain())
    forgets = alone.loss(Batch({"forget": f}, {("forget", "own"): reference}))["loss"]
    out = both.loss(Batch({"forget": f, "retain": r}, {("forget", "own"): reference}))
    torch.testing.assert_close(out["loss"], forgets + 4 * ce(r))
    torch.testing.assert_close(out["retain_ce"], ce(r).detach())
    torch.testing.assert_close(out["log_ratio"], torch.zeros(()))
    with pytest.raises(UserError, match=r"NPO: beta=0 must be > 0"):
        NPO(beta=0)


def test_what_a_method_does_that_is_told_nothing():
    """NPO's beta is that of its paper (arXiv 2404.05868); refusals weigh what retained people weigh."""
    assert (NPO().beta, NPO().retain_weight, IDK().retain_weight) == (0.1, 0.0, 1.0)
    assert (ViKeR().lam, ViKeR().k, ViKeR().retain_weight, ViKeR().ascent) == (1.0, 5, 0.0, "full")


def test_npo_s_gold_model_is_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^model\.method\.gold: .* is a file"):
        NPO(gold=str(tmp_path / "file"))


def test_npo_becomes_gradient_ascent(head):
    f = tokens(head, 1)
    reference = reference_of(tokens(head, 1))
    (a,) = torch.autograd.grad(
        NPO(beta=1e-4).loss(Batch({"forget": f}, {("forget", "own"): reference}))["loss"], f.hidden
    )
    f = tokens(head, 1)
    (b,) = torch.autograd.grad(f.sum_by_question(f.log_probs).mean(), f.hidden)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_idk(head):
    f, r = tokens(head, 1), tokens(head, 2)
    out = IDK(3.0).loss(Batch({"alternative": f, "retain": r}))
    torch.testing.assert_close(out["loss"], ce(f) + 3 * ce(r))
    torch.testing.assert_close((out["refusal_ce"], out["retain_ce"]), (ce(f).detach(), ce(r).detach()))


def ideal(head, labels):
    p = torch.randn(6, 11, generator=torch.Generator().manual_seed(9)).softmax(-1)
    return p, reduce_distribution(p, labels, head.weight)


def test_viker(head):
    f, r = tokens(head, 1), tokens(head, 2)
    p, reference = ideal(head, f.labels)
    kl = (p * (p.log() - head(f.hidden).log_softmax(-1))).sum(-1).mean()
    out = ViKeR(lam=2.0, retain_weight=4.0).loss(
        Batch({"forget": f, "retain": r}, {("forget", "irrelevant"): reference})
    )
    torch.testing.assert_close(out["loss"], -ce(f) + 2 * kl + 4 * ce(r))
    torch.testing.assert_close(out["ideal_kl"], kl.detach())


def test_viker_regulariser_pulls_by_the_difference_of_distributions(head):
    f = tokens(head, 1)
    p, reference = ideal(head, f.labels)
    loss = ViKeR(lam=1.0, ascent="none").loss(Batch({"forget": f}, {("forget", "irrelevant"): reference}))["loss"]
    (found,) = torch.autograd.grad(loss, f.hidden)
    q = head(f.hidden).softmax(-1).detach()
    torch.testing.assert_close(found, (q - p) @ head.weight / 6, rtol=1e-4, atol=1e-6)


def test_viker_ablations(head):
    f = tokens(head, 1)
    torch.testing.assert_close(ViKeR(lam=0).loss(Batch({"forget": f}))["loss"], -ce(f))
    assert ViKeR(lam=0).needs == (Forget(),)
    assert ViKeR(same_image=True).needs == (Forget(own="kl"),)
    assert ViKeR().needs == (Forget(irrelevant=Irrelevant("scenes", k=5)),)
    assert ViKeR(retain_weight=1.0).needs == (Forget(irrelevant=Irrelevant()), Retain())
    assert ViKeR(direction="reverse").needs == (Forget(irrelevant=Irrelevant(level="full")),)


def test_viker_clips_the_ascent(head):
    f = tokens(head, 1)
    nll = -f.log_probs.detach()
    bound = nll.median().item()
    loss = ViKeR(lam=0, ascent_clip=bound).loss(Batch({"forget": f}))["loss"]
    torch.testing.assert_close(loss, -nll.clamp(max=bound).mean())
    (found,) = torch.autograd.grad(loss, f.hidden)
    assert (found[nll > bound] == 0).all() and (found[nll < bound] != 0).any(-1).all()


def test_viker_means_by_question(head):
    f = tokens(head, 1)
    nll = -f.log_probs
    wanted = -(nll[:3].mean() + nll[3] + nll[4:].mean()) / 3
    torch.testing.assert_close(ViKeR(lam=0, per="question").loss(Batch({"forget": f}))["loss"], wanted)


def test_gradient_weights_tell_key_tokens_apart(head):
    f = tokens(head, 1)
    p = torch.full((6, 11), 1 / 11)
    p[:3] = F.one_hot(f.labels[:3], 11).float()
    out = ViKeR().loss(Batch({"forget": f}, {("forget", "irrelevant"): reduce_distribution(p, f.labels, head.weight)}))
    out = ViKeR().logged(out)
    assert not {"key", "pull_key", "pull_other"} & set(out)
    q = f.log_probs.detach().exp()
    torch.testing.assert_close(out["gradient_weight_other"], (q[:3] - 1).abs().mean())
    torch.testing.assert_close(out["gradient_weight_key"], (q[3:] - 1 / 11).abs().mean())


@pytest.mark.parametrize("wrong", [{"lam": -1}, {"k": 0}, {"retain_weight": -1}])
def test_viker_refuses(wrong):
    with pytest.raises(UserError, match="must be"):
        ViKeR(**wrong)


def test_a_stream_or_a_reference_that_is_not_there(head):
    alone = Batch({"forget": tokens(head, 1)})
    with pytest.raises(
        UserError, match=r"^this method reads retain, but declares forget; add Retain\(\) to its needs$"
    ):
        GradientDifference().loss(alone)
    with pytest.raises(
        UserError, match=r"^this method reads what own says of forget, .* add own to Forget\(...\) in its needs"
    ):
        NPO().loss(alone)


def test_a_mean_over_one_question_is_its_value(head):
    t = tokens(head, 1)
    one = AnswerTokens(t.hidden[:2], t.labels[:2], torch.zeros(2, dtype=torch.long), t.private[:2], 1, head)
    assert one.question_share(torch.tensor([3.0])) == 3.0 and one.token_share(torch.tensor([3.0, 5.0])) == 4.0
