"""From image groups to predictions: what a model answers, and how likely the true answer is to it."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from viker_lightning.data.encoding import Encoded
from viker_lightning.data.packing import in_budget, row_tokens
from viker_lightning.data.records import VQA, Cloze, ImageGroup, MultipleChoice, Split
from viker_lightning.errors import UserError
from viker_lightning.ideal import token_kl
from viker_lightning.metrics import likeliest_option, log_prob_moments
from viker_lightning.metrics.prediction import Prediction
from viker_lightning.models import MLLM, AnswerTokens, PromptPrefixes, answer, generate

from .protocols import CORRECTED, ClosedTask, FewShotQuestion, Protocol, Task

MOMENT_TOKENS = 256
"""Tokens whose full distributions are looked at together."""

TASKS = ("generation", "cloze", "choice")
MODALITIES = ("image", "text")


def in_order(prediction: Prediction) -> tuple[int, int, str, int, int, str]:
    """Sort key: by split, modality, person, task, number, photo, whatever process answered the question, and when."""
    split, modality = list(Split).index(Split(prediction.split)), MODALITIES.index(prediction.modality)
    task = TASKS.index(prediction.task)
    return split, modality, prediction.person, task, prediction.number, prediction.image


@dataclass
class _Question:
    """A question of an evaluation group, and the sequences that are read behind the group's image for it.

    Attributes:
        group: the number of its group.
        number: its number among the group's questions of its task.
        task: ``generation`` for an open question.
        source: the question as the data has it.
        encoded: its prompt with each answer whose likelihood is wanted, or without any; none if it is few-shot.
        generated: behind which of them an answer is generated; ``None`` for none.
    """

    group: int
    number: int
    task: Task
    source: VQA | Cloze | MultipleChoice
    encoded: list[Encoded]
    generated: int | None


def predict(
    mllm: MLLM,
    groups: Sequence[ImageGroup],
    gold: MLLM | None = None,
    protocol: Protocol = CORRECTED,
    prefixes: PromptPrefixes | None = None,
    max_new_tokens: int = 50,
) -> list[Prediction]:
    """Answers every question of evaluation groups.

    Everything asked about an image is read behind it in one pass: prompts, true answers, paraphrased and wrong
    answers, options. Open questions and clozes then decode behind the same key/values. Sequences of like length pass
    the model together. Examples that precede questions are read once for all of them.

    Args:
        mllm: the model.
        groups: groups with a split.
        gold: the model retrained without the forget set, to be compared with.
        protocol: how questions are put and answers read.
        prefixes: examples that the model has read already, where more groups are to come; its weights have not changed
            since.
        max_new_tokens: where a generated answer ends at the latest; 50 as in MLLMU-Bench (franciscoliu/MLLMU-Bench
            eval.py). Answers that a protocol has given without the image end where the protocol says.

    Returns:
        Predictions in the order of the groups: of each its open questions, its clozes, its multiple-choice questions.

    Raises:
        UserError: if the model gives probabilities that are not numbers.
    """
    with mllm.evaluating():
        asking = _Asking(mllm, groups, gold, protocol, max_new_tokens)
        packed = [pair for rows in asking.passes() for pair in asking.answer(rows)]
        answered = [*packed, *asking.answer_few_shot(prefixes or PromptPrefixes(mllm))]
        answered.sort(key=lambda pair: (pair[0].group, TASKS.index(pair[0].task), pair[0].number))
        predictions = [prediction for _, prediction in answered]
        if protocol.blind:
            asking.answer_blindly(predictions)
    return predictions


def largest_pass(mllm: MLLM, groups: Sequence[ImageGroup], protocol: Protocol, max_new_tokens: int) -> int:
    """Tokens of the largest pass of :func:`predict`, padding and room for generated ones included.

    Left out is what is answered behind examples, or without the image. Arguments and errors are those of predict.
    """
    asking = _Asking(mllm, groups, None, protocol, max_new_tokens)
    return max((len(rows) * max(map(asking.room, rows)) for rows in asking.passes()), default=0)


@dataclass
class _Asking:
    """One call of :func:`predict`, whose arguments these are."""

    mllm: MLLM
    groups: Sequence[ImageGroup]
    gold: MLLM | None
    protocol: Protocol
    max_new_tokens: int

    def passes(self) -> Iterator[list[list[_Question]]]:
        """All questions but those behind examples, packed, a pass each: sequences of like length together."""
        rows = [row for index in range(len(self.groups)) for row in self._rows(index)]
        rows.sort(key=self.room)
        for part in in_budget([self.room(row) for row in rows], self.mllm.max_tokens, padded=True):
            yield rows[part.start : part.stop]

    def _rows(self, index: int) -> list[list[_Question]]:
        """The questions that are read behind a group's image, as many in a packed sequence as the budget allows."""
        group = self.groups[index]
        questions = [*self._open(index, group), *self._closed(index, group)]
        sizes = [row_tokens(0, question.encoded) for question in questions]
        parts = in_budget(sizes, self.mllm.max_sequence_tokens - len(self.mllm.prefix(group.image)))
        return [[questions[i] for i in part] for part in parts]

    def _open(self, index: int, group: ImageGroup) -> Iterator[_Question]:
        """The open questions of a group, with all answers whose likelihood is wanted."""
        own, image = self.mllm.encoder, group.image is not None
        encoder = self.protocol.encoder(own, "generation", image)
        for number, vqa in enumerate(group.vqa):
            variants = self.protocol.ask_open(vqa, group)
            encoded, generated = [own.encode(variant, image) for variant in variants], 0
            if encoder is not own:  # likelihoods are of the text as it is trained
                generated = len(encoded)
                encoded.append(encoder.question(variants[0].question, image))
            yield _Question(index, number, "generation", vqa, encoded, None if self.protocol.blind else generated)

    def _closed(self, index: int, group: ImageGroup) -> Iterator[_Question]:
        """The clozes and multiple-choice questions of a group that are read behind its image alone."""
        own, image = self.mllm.encoder, group.image is not None
        encoder = self.protocol.encoder(own, "cloze", image)
        for number, cloze in enumerate(group.clozes if self._asks(group, "cloze", few_shot=False) else ()):
            encoded = [encoder.question(self.protocol.ask_cloze(cloze, group), image)]
            yield _Question(index, number, "cloze", cloze, encoded, 0)
        encoder = self.protocol.encoder(own, "choice", image)
        for number, choice in enumerate(group.choices if self._asks(group, "choice", few_shot=False) else ()):
            prompt = self.protocol.ask_choice(choice, group)
            answers = ("",) if self.protocol.letters else choice.options
            encoded = [encoder.encode(VQA(prompt, text), image) for text in answers]
            yield _Question(index, number, "choice", choice, encoded, 0 if self.protocol.letters else None)

    def _asks(self, group: ImageGroup, task: ClosedTask, few_shot: bool) -> bool:
        """Whether a group's questions of a task are asked behind examples, or without any."""
        return not self.protocol.skips(group, task) and self.protocol.is_few_shot(self.mllm, group, task) == few_shot

    def room(self, row: list[_Question]) -> int:
        """Room a sequence takes, generated tokens included; an error where the model has fewer positions."""
        encoded = [q for question in row for q in question.encoded]
        generated = sum(question.generated is not None for question in row)
        prefix = len(self.mllm.prefix(self.groups[row[0].group].image))
        for question in encoded:
            self.mllm.encoder.check_room(prefix, question)
        return row_tokens(prefix, encoded) + generated * self.max_new_tokens

    def answer(self, rows: list[list[_Question]]) -> Iterator[tuple[_Question, Prediction]]:
        """Answers packed questions in one pass."""
        batch = self.mllm.assemble(
            [self.groups[row[0].group].image for row in rows],
            [[q for question in row for q in question.encoded] for row in rows],
        )
        questions = [question for row in rows for question in row]
        starts = itertools.accumulate((len(question.encoded) for question in questions), initial=0)
        firsts = dict(zip(starts, questions, strict=False))  # where in the batch the sequences of a question begin
        places = [first + q.generated for first, q in firsts.items() if q.generated is not None]
        tokens, texts = answer(self.mllm, batch, places, self.max_new_tokens)
        if tokens.log_probs.isnan().any():
            raise UserError(
                "the model's probabilities are not numbers (NaN); load it with model.dtype float32 or bfloat16, "
                "or evaluate other weights"
            )
        sizes = [len(q.answer) for q in batch.encoded]
        log_probs = tokens.log_probs.cpu().split(sizes)
        correct = (tokens.logits.argmax(-1) == tokens.labels).cpu().split(sizes)
        generated = dict(zip(places, map(self.protocol.read_answer, texts), strict=True))
        moments = _moments(tokens, [first for first, q in firsts.items() if isinstance(q.source, VQA)])
        kl_gold = _kl_gold(tokens, self.gold.answer_tokens(batch)) if self.gold else None
        for first, question in firsts.items():
            likelihoods = log_probs[first : first + len(question.encoded)]
            text = None if question.generated is None else generated[first + question.generated]
            if isinstance(question.source, VQA):
                prediction = self._open_prediction(question, likelihoods, text)
                prediction.correct = correct[first].tolist()
                prediction.kl_gold = None if kl_gold is None else kl_gold[first]
                prediction.log_prob_mean, prediction.log_prob_variance = moments[first]
            elif text is None:
                prediction = self._choice_prediction(question, likelihoods)
            else:
                prediction = self._generated_prediction(question, text)
            yield question, prediction

    def answer_few_shot(self, prefixes: PromptPrefixes) -> Iterator[tuple[_Question, Prediction]]:
        """Answers clozes and multiple-choice questions behind examples."""
        questions: list[_Question] = []
        texts: list[FewShotQuestion] = []
        for index, group in enumerate(self.groups):
            for number, cloze in enumerate(group.clozes if self._asks(group, "cloze", few_shot=True) else ()):
                questions.append(_Question(index, number, "cloze", cloze, [], 0))
                texts.append(FewShotQuestion(group, "cloze", self.protocol.ask_cloze(cloze, group)))
            for number, choice in enumerate(group.choices if self._asks(group, "choice", few_shot=True) else ()):
                questions.append(_Question(index, number, "choice", choice, [], 0))
                texts.append(FewShotQuestion(group, "choice", self.protocol.ask_choice(choice, group)))
        answers = self.protocol.answer_few_shot(prefixes, texts, self.max_new_tokens) if texts else []
        for question, text in zip(questions, answers, strict=True):
            yield question, self._generated_prediction(question, self.protocol.read_answer(text))

    def answer_blindly(self, predictions: Sequence[Prediction]) -> None:
        """Answers the open questions of all groups without their images."""
        blind = [
            replace(g, image=None, vqa=tuple(self.protocol.ask_open(q, g)[0] for q in g.vqa), choices=(), clozes=())
            for g in self.groups
            if g.vqa
        ]
        texts = (text for row in generate(self.mllm, blind, self.protocol.max_new_tokens) for text in row)
        open_questions = (p for p in predictions if p.task == "generation")
        for prediction, text in zip(open_questions, texts, strict=True):
            prediction.answer = text

    def _open_prediction(self, question: _Question, log_probs: Sequence[Tensor], text: str | None) -> Prediction:
        """An open question: its generated answer, the likelihoods of the true one, a paraphrase and the wrong ones."""
        source = question.source
        assert isinstance(source, VQA)
        others = [p.mean().item() for i, p in enumerate(log_probs) if i not in (0, question.generated)]
        paraphrased = bool(source.paraphrase)
        return self._prediction(
            question,
            source.answer,
            text or "",
            private=source.private,
            correction=source.correction.private if source.correction else (),
            log_probs=log_probs[0].tolist(),
            private_tokens=list(question.encoded[0].private),
            paraphrase=others[0] if paraphrased else None,
            perturbed=others[paraphrased:],
            ended=question.encoded[0].answer[-1] == self.mllm.encoder.eos,
        )

    def _choice_prediction(self, question: _Question, log_probs: Sequence[Tensor]) -> Prediction:
        """A multiple-choice question answered by the likeliest option."""
        source = question.source
        assert isinstance(source, MultipleChoice)
        means, counts = [p.mean().item() for p in log_probs], [len(p) for p in log_probs]
        chosen, options = source.options[likeliest_option(means, counts)], list(source.options)
        return self._prediction(
            question, options[source.correct], chosen, log_probs=means, options=options, option_tokens=counts
        )

    def _generated_prediction(self, question: _Question, text: str) -> Prediction:
        """A cloze or a multiple-choice question from its generated answer."""
        source = question.source
        if isinstance(source, MultipleChoice):
            chosen, options = self.protocol.read_option(text, source.options), list(source.options)
            return self._prediction(question, options[source.correct], chosen, options=options)
        return self._prediction(question, source.answer, text)

    def _prediction(self, question: _Question, reference: str, answered: str, **scores: Any) -> Prediction:
        group = self.groups[question.group]
        return Prediction(
            str(group.split),
            group.person,
            question.task,
            question.number,
            question.source.question,
            reference,
            answered,
            modality=MODALITIES[group.image is None],
            protocol=self.protocol.name,
            image=group.image.key if group.image is not None else "",
            **scores,
        )


def _moments(tokens: AnswerTokens, questions: Sequence[int]) -> dict[int, tuple[list[float], list[float]]]:
    """Mean and variance of the log-probability of a token drawn from the model, at each answer token of questions."""
    of = tokens.question.cpu()
    chosen = torch.isin(of, torch.tensor(questions, dtype=of.dtype)).nonzero()[:, 0]
    if not len(chosen):
        return {}
    parts = [log_prob_moments(tokens.logits[part.to(tokens.logits.device)]) for part in chosen.split(MOMENT_TOKENS)]
    mean, variance = (torch.cat(values).cpu() for values in zip(*parts, strict=True))
    mine = of[chosen]
    return {q: (mean[mine == q].tolist(), variance[mine == q].tolist()) for q in questions}


def _kl_gold(tokens: AnswerTokens, gold: AnswerTokens) -> list[float]:
    """KL(gold || model) of each question, mean over its tokens."""
    return tokens.mean_by_question(token_kl(gold.logits.softmax(-1), tokens.logits)).tolist()
