"""What a method sees of a step: hidden states, another pass, and what it has not declared."""

import pytest
import torch

from viker_lightning.errors import UserError
from viker_lightning.ideal import reference_of
from viker_lightning.methods import Batch, Forget, Method, Noised, Stranger, Strangers, ViKeR
from viker_lightning.methods.base import check_needs


@pytest.fixture
def batch(mllm, groups):
    """The student's layers 0 and -1, and the frozen model's."""
    tokens = mllm.answer_tokens(mllm.pack(groups), (0, -1))
    with mllm.frozen():
        frozen = mllm.answer_tokens(mllm.pack(groups), (0, -1))
    said = {("forget", "own"): reference_of(frozen, layers=(0, -1))}
    return Batch({"forget": tokens}, said), tokens, frozen


def test_hidden_states_of_student_and_reference(batch):
    made, student, frozen = batch
    for layer in (0, -1):
        assert made.hidden("forget", layer) is student.layers[layer] and student.layers[layer].requires_grad
        assert torch.equal(made.hidden("forget", layer, "own"), frozen.layers[layer].float())
    assert not torch.equal(made.hidden("forget", -1, "own"), made.hidden("forget", -1))


def test_what_is_not_declared(batch):
    made, _, _ = batch
    with pytest.raises(UserError, match=r"reads layer 1, but declares \[0, -1\]; add it to its layers"):
        made.hidden("forget", 1)
    with pytest.raises(UserError, match="irrelevant has no hidden states"):
        made.hidden("forget", 0, "irrelevant")
    with pytest.raises(UserError, match="reads what gold says of forget, but does not declare it"):
        made.hidden("forget", 0, "gold")
    with pytest.raises(UserError, match="this method reads retain, but declares forget, alternative; add"):
        Batch({"forget": made.forget, "alternative": made.forget})["retain"]


def asking(**declared):
    return type("Asking", (Method,), declared)()


def test_the_least_and_the_most_that_is_allowed():
    assert [Noised(noise).noise for noise in (0.5, 1.0)] == [0.5, 1.0]
    for noise in (1.01, -0.01):
        with pytest.raises(UserError, match=f"noise: found {noise}, expected 0 to 1"):
            Noised(noise, "Nobody.")
    check_needs(ViKeR(k=1))
    with pytest.raises(UserError, match=r"k.?0"):
        check_needs(ViKeR(k=0))
    check_needs(Stranger(k=1))
    check_needs(asking(needs=(Forget(), Strangers(count=1, per_step=1, own="kl"))))
    for few in ({"count": 0}, {"per_step": 0}):
        with pytest.raises(UserError, match="at least 1"):
            Strangers(**few)


def test_close_names_are_told():
    with pytest.raises(UserError, match="did you mean 'whole_steps'"):
        check_needs(asking(whole_step=True))
    check_needs(asking(_whole_step=3))  # private to the class
