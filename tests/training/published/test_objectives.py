"""Published objectives in plain lines: ours equal them where they are offered, and differ where they are defects."""

import pytest
import torch
import torch.nn.functional as F

from viker_lightning.data.datasets import MLLMU
from viker_lightning.errors import UserError
from viker_lightning.ideal import Reference, forward_kl, reference_of
from viker_lightning.methods import DPO, IDK, NPO, Batch, GradientAscent, GradientDifference, KLMinimization, ViKeR
from viker_lightning.methods.base import Forget, Gold, Retain
from viker_lightning.models import AnswerTokens
from viker_lightning.training.published import PublishedCLEAR, PublishedMLLMU

VOCABULARY, WIDTH = 11, 5
QUESTION = torch.tensor([0, 0, 0, 1, 2, 2])
LABELS = torch.tensor([1, 4, 2, 8, 5, 7])


@pytest.fixture
def head():
    torch.manual_seed(0)
    return torch.nn.Linear(WIDTH, VOCABULARY, bias=False).requires_grad_(False)


def tokens(head, seed, labels=LABELS, rows=slice(None), step=None):
    hidden = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    question = QUESTION[rows] - QUESTION[rows][0]
    private = torch.zeros(len(question), dtype=torch.bool)
    return AnswerTokens(hidden[rows], labels[rows], question, private, int(question.max()) + 1, head, step)


def as_published(method):
    return PublishedMLLMU(MLLMU("nowhere")).objective(method)


def step(forget, retain, retain_reference):
    return Batch({"forget": forget, "retain": retain}, {("retain", "own"): retain_reference})


def ce(t):
    return F.cross_entropy(t.head(t.hidden), t.labels)


def nothing(head):
    return AnswerTokens.none(head, (1, 1)), Reference.none(head.weight)


def test_gradient_difference_takes_turns(head):
    """M10: the same two terms, one at a time, so that the retain set mends what the forget set has broken."""
    method = as_published(GradientDifference())
    assert method.in_passes and not GradientDifference().in_passes
    f, r, (none, _) = tokens(head, 1), tokens(head, 2), nothing(head)
    torch.testing.assert_close(method.loss(Batch({"forget": f, "retain": none}))["loss"], -ce(f))
    torch.testing.assert_close(method.loss(Batch({"forget": none, "retain": r}))["loss"], ce(r))
    torch.testing.assert_close(GradientDifference().loss(Batch({"forget": f, "retain": r}))["loss"], ce(r) - ce(f))


def scripts_kl(student, teacher):
    """KL_Min.py L492-556: batchmean of ``[B, T, V]`` divides by B."""
    return F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="batchmean")


def test_kl_minimization_sums_over_tokens(head):
    """P5, M9: the published KL grows with the length of answers, ours is a mean over their tokens."""
    method = as_published(KLMinimization())
    assert method.in_passes and method.needs == (Forget(), Retain(own="kl"))
    student, vanilla, (none, no_reference) = tokens(head, 2), tokens(head, 3), nothing(head)
    padded = torch.zeros(2, 3, 3, VOCABULARY)  # student and teacher agree on padding: nothing to sum there
    for row, (start, stop) in enumerate([(0, 3), (3, 4), (4, 6)]):
        padded[0, row, : stop - start] = head(student.hidden)[start:stop]
        padded[1, row, : stop - start] = head(vanilla.hidden)[start:stop]
    kl, found = scripts_kl(*padded), method.loss(step(none, student, reference_of(vanilla)))
    torch.testing.assert_close(found["retain_kl"], kl.detach())
    torch.testing.assert_close(found["loss"], ce(student) + kl)
    f = tokens(head, 1)
    torch.testing.assert_close(method.loss(step(f, none, no_reference))["loss"], -ce(f))
    corrected = KLMinimization().loss(step(f, student, reference_of(vanilla)))
    torch.testing.assert_close(corrected["retain_kl"] * 6, found["retain_kl"] * 3)


def test_published_kl_depends_on_padding_and_image(head):
    """P4: flattened to ``[B T, V]``, positions nobody asks about dilute the KL; ours has answer tokens only."""
    student, vanilla = tokens(head, 2), tokens(head, 3)
    logits, reference = head(student.hidden).detach(), head(vanilla.hidden).detach()

    def published(extra):
        rest = torch.zeros(extra, VOCABULARY)
        return scripts_kl(torch.cat([logits, rest]), torch.cat([reference, rest]))

    torch.testing.assert_close(published(18), published(0) / 4)
    ours = student.mean(forward_kl(reference_of(vanilla), student)).detach()
    torch.testing.assert_close(ours, published(0))


def test_kl_parts_add_up(head):
    """As with every other method, a step may pass in parts."""
    whole, vanilla, (none, _) = tokens(head, 2), tokens(head, 3), nothing(head)
    wanted = as_published(KLMinimization()).loss(step(none, whole, reference_of(vanilla)))["loss"]
    parts = []
    for rows in (slice(0, 4), slice(4, 6)):
        part, teacher = (tokens(head, seed, rows=rows, step=(6, 3)) for seed in (2, 3))
        parts.append(as_published(KLMinimization()).loss(step(none, part, reference_of(teacher)))["loss"])
    torch.testing.assert_close(sum(parts), wanted)


@pytest.mark.parametrize("kind", [GradientDifference, KLMinimization, NPO])
def test_a_subclass_is_trained_with_its_own_loss(kind, caplog):
    """The authors have no script of it; theirs in its place would be another method, and nobody would know."""
    mine = type("Mine", (kind,), {"loss": lambda self, batch: {"loss": torch.zeros(())}})()
    assert as_published(mine) is mine and not mine.in_passes
    assert caplog.messages == ["data.protocol=published has no script of Mine, which is trained with its own loss"]
    caplog.clear()
    once = as_published(kind(**({"gold": "somewhere"} if kind is NPO else {})))
    assert type(as_published(once)) is type(once) and not caplog.messages, "a run may be set up again"


def test_npo_of_a_batch(head):
    """P7, M9: one scalar a batch, against a gold reference; ours tells questions apart."""
    method = as_published(NPO(beta=0.4, gold="somewhere"))
    assert method.needs == (Forget(gold=Gold("somewhere", "log_prob")),)
    assert method.whole_steps and not NPO().whole_steps and NPO().gold is None
    f, gold = tokens(head, 1), tokens(head, 3)
    wanted = -(2 / 0.4) * F.logsigmoid(0.4 * (ce(f) - ce(gold)))
    found = method.loss(Batch({"forget": f}, {("forget", "gold"): reference_of(gold)}))["loss"]
    torch.testing.assert_close(found, wanted)
    corrected = NPO(beta=0.4).loss(Batch({"forget": f}, {("forget", "own"): reference_of(gold)}))["loss"]
    assert (corrected - found).abs() > 0.05
    (published_pull,) = torch.autograd.grad(found, f.hidden, retain_graph=True)
    (own_pull,) = torch.autograd.grad(corrected, f.hidden)
    ratio = published_pull.norm(dim=-1) / own_pull.norm(dim=-1)
    assert ratio.max() / ratio.min() > 1.1, ratio  # not one step size for another: other tokens are pushed


@pytest.mark.parametrize(
    ("options", "expected"), [({}, "set gold to it"), ({"gold": "x", "retain_weight": 1.0}, "found retain_weight=1.0")]
)
def test_published_npo_refuses(options, expected):
    with pytest.raises(UserError, match=f"NPO: data.protocol=published .*{expected}"):
        as_published(NPO(**options))


def test_what_has_no_script_stays_as_it_is():
    for method in (GradientAscent(), ViKeR(), IDK()):
        assert as_published(method) is method
    for method in (GradientDifference(), KLMinimization(), NPO()):
        assert PublishedCLEAR(None).objective(method) is method


def test_npo_of_clear_does_not_read_the_answer(head):
    """P2, C7 (mm/trainer.py L343-353): it is of the whole vocabulary; any answer gives the same loss."""

    def clears(student, reference, beta=0.4):
        ratio = head(student.hidden).softmax(-1) / head(reference.hidden).softmax(-1)
        return 2 / beta * torch.log(1 + ratio**beta).mean()

    other = LABELS.flip(0)
    one, two = ((tokens(head, 1, labels), tokens(head, 3, labels)) for labels in (LABELS, other))
    assert clears(*one) == clears(*two)
    ours = [
        NPO(beta=0.4).loss(Batch({"forget": f}, {("forget", "own"): reference_of(v)}))["loss"] for f, v in (one, two)
    ]
    assert (ours[0] - ours[1]).abs() > 0.1


def test_dpo_of_clear_is_refusal_training(head):
    """P3, C7 (mm/trainer.py L364-396): the loss is overwritten, and nothing is left of answer or reference."""
    answer, refusal = tokens(head, 1), tokens(head, 2)
    answer_reference, refusal_reference = tokens(head, 3), tokens(head, 4)

    def log_prob(t):
        return t.sum_by_question(t.log_probs)

    def dpo(beta=0.4):
        win, lose = log_prob(refusal) - log_prob(refusal_reference), log_prob(answer) - log_prob(answer_reference)
        return -2 / beta * F.logsigmoid(beta * (win - lose)).mean()

    def clears():
        loss = dpo()
        loss = -log_prob(refusal).mean()
        return loss

    assert torch.autograd.grad(dpo(), answer.hidden, retain_graph=True)[0].abs().max() > 0
    assert torch.autograd.grad(clears(), answer.hidden, retain_graph=True, allow_unused=True)[0] is None
    known = {("forget", "own"): reference_of(answer_reference), ("alternative", "own"): reference_of(refusal_reference)}
    whole = DPO(beta=0.4, retain_weight=0.0).loss(Batch({"forget": answer, "alternative": refusal}, known))["loss"]
    torch.testing.assert_close(whole, dpo())
    ours = IDK(retain_weight=0.0).loss(Batch({"alternative": refusal, "retain": nothing(head)[0]}))["loss"]
    (left,) = torch.autograd.grad(clears(), refusal.hidden, retain_graph=True)
    (idk,) = torch.autograd.grad(ours, refusal.hidden)
    torch.testing.assert_close(left / left.norm(), idk / idk.norm())


def test_icd_without_its_kl_is_gradient_ascent(head):
    """P11: FIUBench's ICD row repeats gradient ascent; our KL minimisation does not."""
    f, r, vanilla = tokens(head, 1), tokens(head, 2), tokens(head, 3)
    icd = -ce(f)  # + KL, commented out
    torch.testing.assert_close(GradientAscent().loss(Batch({"forget": f}))["loss"], icd)
    assert (KLMinimization().loss(step(f, r, reference_of(vanilla)))["loss"] - icd).abs() > 0.1
