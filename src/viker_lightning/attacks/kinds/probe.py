"""Linear probes: whether a layer still tells attributes of forgotten people apart, before it has read them."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from typing_extensions import override

from viker_lightning.attacks.attempt import Attempt, Whose
from viker_lightning.attacks.base import Attack, ask
from viker_lightning.attacks.material import Material
from viker_lightning.attacks.subject import Subject
from viker_lightning.data.records import VQA, ImageGroup, Person, person_name
from viker_lightning.models import MLLM, decoder_layers, split_to_budget
from viker_lightning.terminal.progress import Bar

log = logging.getLogger(__name__)

PLACES = ("linear probe before the answer", "linear probe before the span")
CHANCE = "always the most frequent"


@dataclass(frozen=True)
class Probe(Attack):
    """Trains a linear probe of each layer on people who are kept, and has it tell attributes of the forgotten ones.

    A probe is a multinomial logistic regression from a hidden state to the private span, one for each attribute that is
    asked about. It reads the position that predicts the first answer token, where nothing of an answer has been read;
    and, in a series of its own, the position that predicts the first token of the span, behind the template before it:
    a model of few layers knows no sooner. Only spans that are true of two or more of the kept people can be learned, so
    only questions with one of these enter, the same ones in every series. **A hit is a right prediction.** The people
    of ``retain`` are kept ones the probes were not trained on; always to say the most frequent span of an attribute is
    a series of its own, what chance gives.

    Args:
        penalty: L2, in ``sum of cross-entropies + penalty / 2 * ||W||^2``; scikit-learn's ``1 / C``.
        photos: most photos of a person that are trained on; every question is asked about each.
        every: of so many layers one is probed, the last one among them.
    """

    name = "probe"
    about = "linear probes of each layer, trained on kept people, for attributes of the forgotten ones"
    source = "logistic regression on hidden states: Lynch et al., Eight Methods, arXiv 2402.16835, 'latent knowledge'"
    beside = (CHANCE,)
    axis = "layer"
    says = False
    conditions = ("layers",)

    penalty: float = 1.0
    photos: int = 2
    every: int = 1

    @override
    @classmethod
    def quick(cls) -> Self:
        return cls(every=8)

    @override
    def carry_out(self, part: str, subject: Subject, material: Material) -> list[Attempt]:
        attributes = learnable(material.others)
        kept = [ImageGroup(p.id, one, vqa=p.vqa) for p in material.others for one in p.images[: self.photos] or (None,)]
        trained, asked = _only(kept, attributes), _only(material.asked, attributes)
        whole = sum(len(g.vqa) for g in material.asked)
        log.info(
            "probe: %d spans of %d attributes can be learned; %d of %d questions ask for one",
            *(len(attributes), len(set(attributes.values())), sum(len(g.vqa) for g in asked), whole),
        )
        if not asked:
            return []
        mllm = subject.load()
        clean = ask(mllm, asked, self.clean)
        count = len(decoder_layers(mllm.language_model))
        layers = range((count - 1) % self.every, count, self.every)
        seen, shown = states_before(mllm, trained, layers), states_before(mllm, asked, layers)
        spans = [_span(q) for g in trained for q in g.vqa]
        wanted = [_span(q) for g in asked for q in g.vqa]
        found = list(clean)
        for attribute in sorted(set(map(attributes.__getitem__, wanted))):
            rows = [i for i, span in enumerate(spans) if attributes[span] == attribute]
            places = [i for i, span in enumerate(wanted) if attributes[span] == attribute]
            classes, labels = _classes([spans[i] for i in rows])
            usual = classes[int(labels.bincount(minlength=len(classes)).argmax())]
            found += [_attempt(clean[i], CHANCE, None, usual) for i in places]
            for layer in layers:
                for series, one, two in zip(PLACES, seen[layer], shown[layer], strict=True):
                    chosen = classify(one[rows], labels, two[places], self.penalty)
                    said = [classes[c] for c in chosen.tolist()]
                    found += [_attempt(clean[i], series, layer + 1, s) for i, s in zip(places, said, strict=True)]
        return found

    @override
    def numbers(self, found: Sequence[Attempt]) -> dict[str, float]:
        """How many questions were asked about the forget people and about those who are kept."""
        asked: Counter[Whose] = Counter(one.whose for one in found if one.series != self.clean)
        return {"questions": asked["forget"], "retain_questions": asked["retain"]}


def learnable(people: Iterable[Person]) -> dict[str, int]:
    """The spans that a probe can learn, with the number of the attribute each of them is a value of.

    A span is to be true of two people; two spans are values of one attribute if the same question is asked for both
    (or if a chain of such spans joins them). An attribute has two spans or more.
    """
    of_question: dict[str, set[str]] = defaultdict(set)
    true_of: dict[str, set[str]] = defaultdict(set)
    for person in people:
        for q in person.vqa:
            if span := _span(q):
                of_question[q.question].add(span)
                true_of[span].add(person_name(person.id))
    joined: dict[str, str] = {span: span for span in true_of}

    def first(span: str) -> str:
        while joined[span] != span:
            span = joined[span]
        return span

    for spans in of_question.values():
        one, *others = sorted(spans)
        for other in others:
            joined[first(other)] = first(one)
    values: dict[str, list[str]] = defaultdict(list)
    for span in sorted(span for span, whose in true_of.items() if len(whose) > 1):
        values[first(span)].append(span)
    several = [spans for _, spans in sorted(values.items()) if len(spans) > 1]
    return {span: number for number, spans in enumerate(several) for span in spans}


def states_before(mllm: MLLM, groups: Sequence[ImageGroup], layers: Sequence[int]) -> dict[int, Tensor]:
    """``[2, Q, d]`` of each layer: hidden states that predict the first token of each answer, and of its private span.

    Where no token of an answer is private, both are the first.
    """
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    with torch.no_grad(), Bar("hidden states", sum(len(g.vqa) for g in groups), "questions") as bar:
        for part in split_to_budget(mllm, groups):
            tokens = mllm.answer_tokens(mllm.pack(part), layers)
            index = torch.arange(len(tokens.labels), device=tokens.labels.device)
            nowhere = index.new_full((tokens.n_questions,), len(index))
            first = nowhere.scatter_reduce(0, tokens.question, index, "amin")
            span = nowhere.scatter_reduce(0, tokens.question, index.where(tokens.private, len(index)), "amin")
            places = torch.stack([first, span.where(span < len(index), first)])
            for layer, states in tokens.layers.items():
                found[layer].append(states[places].cpu())
            bar.advance(tokens.n_questions)
    return {layer: torch.cat(states, 1) for layer, states in found.items()}


def classify(states: Tensor, labels: Tensor, asked: Tensor, penalty: float) -> Tensor:
    """Fits a multinomial logistic regression to ``[N, d]`` states with ``[N]`` labels; ``[M]`` classes of those asked.

    Features are standardised by those it is fitted to, and the penalty is L2 on the weights, not on the bias. The loss
    is convex, so where it starts does not matter.
    """
    states, asked = states.double(), asked.double()
    mean, spread = states.mean(0), states.std(0, correction=0)
    spread = spread.where(spread > 0, 1.0)
    states, asked = (states - mean) / spread, (asked - mean) / spread
    count = int(labels.max()) + 1
    with torch.enable_grad():
        weight = states.new_zeros(count, states.shape[1], requires_grad=True)
        bias = states.new_zeros(count, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = cross_entropy(states @ weight.T + bias, labels, reduction="sum")
            value = value + penalty / 2 * weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
    return (asked @ weight.detach().T + bias.detach()).argmax(1)


def _classes(spans: Sequence[str]) -> tuple[list[str], Tensor]:
    """The values that spans have, and ``[N]`` which of them each is."""
    classes = sorted(set(spans))
    return classes, torch.tensor([classes.index(span) for span in spans])


def _span(question: VQA) -> str:
    """The only private span of an answer, if the question does not say it; else nothing."""
    one = question.private[0] if len(question.private) == 1 else ""
    return "" if one in question.question else one


def _only(groups: Iterable[ImageGroup], attributes: dict[str, int]) -> list[ImageGroup]:
    """Groups with the questions that ask for a span that can be learned."""
    found = [replace(g, vqa=tuple(q for q in g.vqa if _span(q) in attributes)) for g in groups]
    return [g for g in found if g.vqa]


def _attempt(one: Attempt, series: str, layer: int | None, said: str) -> Attempt:
    right = said == one.private[0]
    return replace(one, series=series, x=layer, answer=said, hit=float(right), probability=None)
