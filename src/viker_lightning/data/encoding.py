"""Questions and answers as token ids: the only place where a chat template meets a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from viker_lightning.errors import UserError, short

from .records import VQA, Labels


@dataclass(frozen=True)
class Template:
    """The text around an image, a question and its answer; one for each model family.

    A sequence is ``image_prefix`` (or ``text_prefix``), then for every question ``question`` and ``answer``.

    Attributes:
        image_prefix: what stands before a question about an image; holds ``image_token`` once.
        text_prefix: what stands before a question without image.
        question: holds ``{question}``; follows ``image_prefix``.
        text_question: the same after ``text_prefix``.
        answer: holds ``{answer}``; follows the question.
        image_token: the placeholder that stands for the image.
        end: the token that ends an answer; empty for the tokenizer's end of sequence.
    """

    image_prefix: str
    text_prefix: str
    question: str
    text_question: str
    answer: str
    image_token: str
    end: str = ""


@dataclass(frozen=True)
class Encoded:
    """One question with its answer, as token ids.

    Attributes:
        prompt: ids of the question, up to and with the token that predicts the first answer token; empty if the
            question itself is to be predicted (:attr:`~viker_lightning.data.records.Labels.TEXT`).
        answer: ids that are to be predicted: the answer and, if the labels say so, the end of sequence behind it, or
            the text before it.
        private: for each answer id, whether it belongs to a private span of the answer; punctuation never does.
        starts: for each answer id, whether a private span begins there.
        lead: columns of the first ids of ``answer`` that stand in the row's prefix already; negative ones count from
            its end.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    private: tuple[bool, ...]
    starts: tuple[bool, ...]
    lead: tuple[int, ...] = ()

    @property
    def own(self) -> tuple[int, ...]:
        """The answer ids that follow the prompt."""
        return self.answer[len(self.lead) :]


class Encoder:
    """Turns questions into token ids and remembers them, since every epoch asks the same ones.

    Args:
        tokenizer: a fast tokenizer (character offsets are needed to find the private spans of an answer).
        template: the text around question and answer.
        placeholders: how many positions every image takes, if they are to count among all text
            (:attr:`~viker_lightning.data.records.Labels.TEXT`); 0 for none.
        room: how many positions the model has; ``None`` if nobody knows.

    Raises:
        UserError: if the tokenizer has no offsets, no end of sequence or no image token.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: Template, placeholders: int = 0, room: int | None = None
    ) -> None:
        if not tokenizer.is_fast:
            raise UserError(f"{type(tokenizer).__name__} has no character offsets; load the model's fast tokenizer")
        self.tokenizer, self.template, self.placeholders = tokenizer, template, placeholders
        self.room = room
        name, vocabulary = tokenizer.name_or_path or type(tokenizer).__name__, tokenizer.get_vocab()
        eos = vocabulary.get(template.end) if template.end else tokenizer.eos_token_id
        if eos is None:
            raise UserError(
                f"{name}: the tokenizer has no end of sequence (found {template.end or None!r}), so no answer would "
                "end; set eos_token in tokenizer_config.json"
            )
        self.eos = int(eos)
        if self._ids(template.image_prefix).count(vocabulary.get(template.image_token, -1)) != 1:
            raise UserError(
                f"{name}: the tokenizer has no image token {template.image_token!r}, or takes it apart; load the "
                "tokenizer that belongs to the model"
            )
        self._prefixes: dict[str | None, list[int]] = {}
        self._encoded: dict[tuple[VQA, bool], Encoded] = {}

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @cached_property
    def _around_image(self) -> tuple[list[int], list[int]]:
        before, after = self.template.image_prefix.split(self.template.image_token)
        return [*self._start, *self._ids(before)], self._ids(after)

    @property
    def image_start(self) -> int:
        """Column of what the processor writes for the image."""
        return len(self._around_image[0])

    @cached_property
    def _start(self) -> list[int]:
        with_special = self.tokenizer("x")["input_ids"]
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and with_special[:1] == [bos] else []

    def prefix(self, image: str | None) -> list[int]:
        """Ids shared by all questions about one image.

        Args:
            image: what the processor writes for the image; ``None`` is for text-only questions.
        """
        if image not in self._prefixes:
            text, token = self.template, self.template.image_token
            written = text.text_prefix if image is None else text.image_prefix.replace(token, image)
            self._prefixes[image] = [*self._start, *self._ids(written)]
        return self._prefixes[image]

    def sequence(self, text: str) -> list[int]:
        """Ids of a whole text, in which what the processor writes for images stands already."""
        return [*self._start, *self._ids(text)]

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """What the tokenizer reads as one token that is no text, wherever it stands."""
        added = (str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special)
        names = {self.template.image_token, *map(str, self.tokenizer.all_special_tokens), *added}
        long = [name for name in names if len(name) > 2]  # a padding token may be an ordinary sign, such as "!"
        pattern = "|".join(map(re.escape, sorted(long, key=len, reverse=True)))
        return re.compile(pattern or "(?!)")

    def plain(self, text: str) -> str:
        """A text without special tokens."""
        while self._special.search(text):
            text = self._special.sub("", text)
        return text

    def check(self, text: str) -> None:
        """Makes sure that a text of the data is nothing but text for the tokenizer.

        Raises:
            UserError: if it holds a special token such as ``</s>``, which would end an answer, or ``<image>``, behind
                which the model would look for an image.
        """
        if found := self._special.search(text):
            raise UserError(
                f"data: the text {short(text)} holds {found[0]!r}, a special token of this model; write it in another "
                "way, or remove the row"
            )

    def check_room(self, prefix: int, question: Encoded) -> None:
        """Makes sure that the model has a position for every token of a question behind so many others.

        Raises:
            UserError: if it has not.
        """
        needed = prefix + len(question.prompt) + len(question.own) - 1
        if self.room is not None and needed > self.room:
            text = str(self.tokenizer.decode([*question.prompt, *question.own]))
            raise UserError(
                f"data: the question {short(text.strip())} takes {needed} tokens with its image and its answer of "
                f"{len(question.own)}, but this model has {self.room} positions; shorten it"
            )

    def encode(self, vqa: VQA, image: bool) -> Encoded:
        """Token ids of a question and its answer.

        The two are tokenised as one text, so that no token differs from what the model's own processor makes of it.

        Raises:
            UserError: if a private span does not occur in the answer, a text holds a special token, or the model has
                too few positions.
        """
        key = (vqa, image)
        if key not in self._encoded:
            for text in (vqa.question, vqa.answer):
                self.check(text)
            encoded = self._encode(vqa, image)
            self.check_room(len(self.prefix(None)), encoded)  # an image has not been looked at yet
            self._encoded[key] = encoded
        return self._encoded[key]

    def question(self, question: str, image: bool) -> Encoded:
        """A question that is to be answered by generation: its answer is the end of sequence."""
        return self.encode(VQA(question, ""), image)

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each token, so that all of them join to the text of the whole."""
        decode = self.tokenizer.decode
        grown = [str(decode(list(ids[:i]))) for i in range(len(ids) + 1)]
        return [
            # Alone, a token of a SentencePiece vocabulary loses its space; part of a character spells nothing yet.
            after.removeprefix(before) if after.startswith(before) else str(decode([token]))
            for token, before, after in zip(ids, grown, grown[1:], strict=False)
        ]

    def _tokenize_behind(self, before: str, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and character offsets of a text behind its beginning, on which they may depend."""
        tokens = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        first = self._ids(before)
        if tokens["input_ids"][: len(first)] != first:
            raise UserError(f"the tokenizer joins the end of {before!r} with what follows; change the template")
        return tokens["input_ids"][len(first) :], tokens["offset_mapping"][len(first) :]

    def _encode(self, vqa: VQA, image: bool) -> Encoded:
        template = self.template
        before = template.image_prefix if image else template.text_prefix
        asked = before + (template.question if image else template.text_question).format(question=vqa.question)
        if not vqa.answer:
            return Encoded(tuple(self._tokenize_behind(before, asked)[0]), (self.eos,), (False,), (False,))
        text = asked + template.answer.format(answer=vqa.answer)
        ids, offsets = self._tokenize_behind(before, text)
        first = next(i for i, (_, end) in enumerate(offsets) if end > len(asked))
        spans = _private_spans(vqa, len(asked) + template.answer.index("{answer}"))
        private = [
            any(start < b and end > a for a, b in spans) and any(c.isalnum() for c in text[start:end])
            for start, end in offsets[first:]
        ]
        starts = [any(start <= a < end for a, _ in spans) for start, end in offsets[first:]]
        if vqa.labels == Labels.ANSWER or self._ends_turns:
            ids, private, starts = [*ids, self.eos], [*private, False], [*starts, False]
        if vqa.labels != Labels.TEXT:
            return Encoded(tuple(ids[:first]), tuple(ids[first:]), tuple(private), tuple(starts))
        lead = self._lead(image)
        before_answer = [False] * (len(lead) + first)
        answer = (*lead.values(), *ids)
        return Encoded((), answer, (*before_answer, *private), (*before_answer, *starts), tuple(lead))

    @property
    def _ends_turns(self) -> bool:
        """Whether the end of sequence is part of the chat template."""
        return (self.template.end or str(self.tokenizer.eos_token)) in self.template.question

    def _lead(self, image: bool) -> dict[int, int]:
        """Column and id of the prefix's text around the image; nothing predicts its very first token."""
        before, after = self._around_image if image else (self.prefix(None), [])
        shown = self.placeholders if image else 0
        token = int(self.tokenizer.get_vocab()[self.template.image_token]) if shown else 0
        placeholders = dict.fromkeys(range(len(before), len(before) + shown), token)
        placeholders.pop(0, None)
        return dict(enumerate(before[1:], start=1)) | placeholders | dict(enumerate(after, start=-len(after)))


def _private_spans(vqa: VQA, start: int) -> list[tuple[int, int]]:
    """Where the private spans stand in a text whose answer begins at character ``start``."""
    spans = []
    for private in vqa.private:
        found = [m.span() for m in re.finditer(rf"(?<!\w){re.escape(private)}(?!\w)", vqa.answer)]
        if not found:
            raise UserError(f"private span {private!r} does not occur in the answer {vqa.answer!r}; fix the data")
        spans += [(start + a, start + b) for a, b in found]
    return spans
