"""What most families have in common; a family file imports what holds for it and writes the rest itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from viker_lightning.data.encoding import Template
from viker_lightning.errors import UserError

QUESTION, ANSWER = "Which question?", "Some answer."


def language_model(model: Any) -> nn.Module:
    """What reads tokens: LoRA goes here and nowhere else."""
    return model.model.language_model


def text_model(model: Any) -> nn.Module:
    """The same where it goes by another name."""
    return model.model.text_model


def image_text(placeholder: str, shape: tuple[int, ...]) -> str:
    """What the processor writes for one image: a placeholder for every position."""
    return placeholder * math.prod(shape)


def encoded(images: Sequence[Tensor]) -> Any:
    """Token embeddings ``[P, d]`` of images as transformers' forward takes them in place of pixels."""
    return BaseModelOutputWithPooling(pooler_output=list(images))  # type: ignore[arg-type]


def position_ids(positions: Tensor, shapes: Sequence[tuple[int, ...] | None], start: int) -> Tensor:
    """Positions as the model counts them: one for each token.

    Args:
        positions: ``[B, T]`` counted in tokens.
        shapes: shape of each row's image.
        start: column of the first image position.
    """
    return positions


def chat_template(processor: Any, *image_tokens: str) -> Template:
    """The template that the processor's own chat template makes of one user turn.

    Args:
        processor: the processor.
        *image_tokens: what may stand for the image in a rendered conversation.

    Raises:
        UserError: if there is no chat template, or it does not put one image before the question.
    """
    name = type(processor).__name__
    if not getattr(processor, "chat_template", None):
        raise UserError(f"{name}: there is no chat template beside the weights; add chat_template.jinja to them")
    image, question = {"type": "image"}, {"type": "text", "text": QUESTION}

    def said(content: list[dict[str, str]], answer: str | None = None) -> str:
        turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if answer is not None:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        text = str(processor.apply_chat_template(turns, add_generation_prompt=answer is None, tokenize=False))
        added = processor.tokenizer("x")["input_ids"][:1] == [processor.tokenizer.bos_token_id]
        return text.removeprefix(processor.tokenizer.bos_token) if added else text

    asked, without = said([image, question]), said([question])
    whole = said([image, question], ANSWER)
    before, _, after = asked.partition(QUESTION)
    text_before, _, text_after = without.partition(QUESTION)
    image_token = next((token for token in image_tokens if before.count(token) == 1), None)
    if image_token is None or QUESTION not in without or ANSWER not in whole:
        raise UserError(
            f"{name}: its chat template does not put one image, {' or '.join(image_tokens)}, before the question (it "
            f"says {asked!r}); such a model needs a file of its own in viker_lightning/models/families"
        )
    end = before.index(image_token) + len(image_token)
    lead, _, behind = whole.partition(QUESTION)[2].partition(ANSWER)
    return Template(
        image_prefix=before[:end],
        text_prefix=text_before.rstrip(),  # a blank at its end would become part of the question's first token
        question=before[end:] + "{question}" + after,
        text_question=text_before[len(text_before.rstrip()) :] + "{question}" + text_after,
        answer=(lead.removeprefix(after) if lead.startswith(after) else "") + "{answer}",
        image_token=image_token,
        end=_first_special(processor.tokenizer, behind),
    )


def _first_special(tokenizer: Any, text: str) -> str:
    """The special token a text begins with, or the end of sequence."""
    tokens = tokenizer.tokenize(text.strip(), add_special_tokens=False)
    known = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tokens[0] if tokens and tokens[0] in known else str(tokenizer.eos_token)
