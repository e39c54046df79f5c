"""Holds a method against its loss in plain lines, on a step of random tokens, in one part and in several."""

import pytest
import torch

from viker_lightning.ideal import Reference, reduce_distribution
from viker_lightning.methods import Batch
from viker_lightning.methods.base import check_needs
from viker_lightning.models import AnswerTokens

V, D = 11, 5
LABELS = {
    "forget": torch.tensor([3, 1, 4, 1, 5, 9]),
    "alternative": torch.tensor([2, 7, 1, 8, 2]),
    "retain": torch.tensor([8, 9, 7]),
}
QUESTION = {
    "forget": torch.tensor([0, 0, 0, 1, 2, 2]),
    "alternative": torch.tensor([0, 1, 1, 1, 2]),
    "retain": torch.tensor([0, 0, 0]),
}
WHOLE = [dict.fromkeys(LABELS, slice(0, None))]
PARTS = [  # the last two have no retain question
    {"forget": slice(0, 3), "alternative": slice(0, 1), "retain": slice(0, 3)},
    {"forget": slice(3, 4), "alternative": slice(1, 4), "retain": slice(3, 3)},
    {"forget": slice(4, 6), "alternative": slice(4, 5), "retain": slice(3, 3)},
]
in_parts = pytest.mark.parametrize("parts", [WHOLE, PARTS], ids=["one part", "three parts"])


def some(seed, *shape, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def head():
    found = torch.nn.Linear(D, V, bias=False).requires_grad_(False)
    found.weight.copy_(some(0, V, D))
    return found


def states():
    """The student's, by stream."""
    return {stream: some(n, len(labels), D).requires_grad_() for n, (stream, labels) in enumerate(LABELS.items(), 1)}


def said():
    """What references say, by stream and name."""
    names = [(stream, name) for stream in LABELS for name in ("own", "noised")]
    return {key: some(n, len(LABELS[key[0]]), V, scale=2.0).softmax(-1) for n, key in enumerate(names, 10)}


def answers(values, stream="forget"):
    """Of ``[T, V]`` values those of the answer tokens."""
    return values[torch.arange(len(values)), LABELS[stream]]


def questions(values, stream="forget"):
    """Sums of ``[T]`` values by question."""
    return torch.stack([values[QUESTION[stream] == q].sum() for q in QUESTION[stream].unique()])


def ce(logits, stream):
    return torch.nn.functional.cross_entropy(logits, LABELS[stream])


def batches(method, hidden, known, parts, number=0, layer=None):
    """A step as a method sees it; of references it gets what it declares."""
    layer = layer or head()
    for part in parts:
        tokens, references, distributions = {}, {}, {}
        for stream, need in method.streams.items():
            here, step = part[stream], (len(LABELS[stream]), len(QUESTION[stream].unique()))
            question = QUESTION[stream][here].unique(return_inverse=True)[1]
            labels, count = LABELS[stream][here], len(question.unique())
            tokens[stream] = AnswerTokens(hidden[stream][here], labels, question, labels.bool(), count, layer, step)
            for name, level in need.levels.items():
                p = known[stream, name][here]
                reference = reduce_distribution(p, labels, layer.weight)
                if level != "kl":
                    reference = Reference(reference.vector[:, :0], reference.entropy, reference.log_prob)
                if level == "full":
                    distributions[stream, name] = p
                references[stream, name] = reference
        yield Batch(tokens, references, distributions, number)


def step(method, hidden, parts=WHOLE, number=0, known=None, layer=None):
    """Terms of a step, added up over its parts."""
    terms = {}
    for batch in batches(method, hidden, known or said(), parts, number, layer):
        for name, value in method.loss(batch).items():
            terms[name] = terms.get(name, 0) + value
    return terms


def hold_against(method, plain, parts=WHOLE, number=0):
    """Loss and gradient of a method against those of plain lines, which see ``[T, V]`` logits and what is said.

    Returns the terms of the step.
    """
    check_needs(method)
    hidden, known = states(), said()
    logits = {stream: head()(hidden[stream]) for stream in method.streams}
    wanted, terms = plain(logits, known), step(method, hidden, parts, number, known)
    torch.testing.assert_close(terms["loss"], wanted)
    for stream in method.streams:
        found, gradient = (
            torch.autograd.grad(loss, hidden[stream], retain_graph=True, materialize_grads=True)[0]
            for loss in (terms["loss"], wanted)
        )
        torch.testing.assert_close(found, gradient)
    assert all(value.ndim == 0 for value in terms.values())
    return terms
