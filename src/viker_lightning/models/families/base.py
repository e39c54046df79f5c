"""What is asked of a family of models, with the answers that hold for most of them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jinja2 import TemplateError
from PIL.Image import Image
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from viker_lightning.data.encoding import Encoder, Template
from viker_lightning.data.records import Picture
from viker_lightning.errors import UserError
from viker_lightning.storage.sources import fingerprint, source_files

QUESTION, ANSWER = "Which question?", "Some answer."


class Family:
    """How one family of models writes a prompt and sees an image. It has no state: model and processor are arguments.

    Attributes:
        model_classes: transformers classes of the family.
        packs: whether it is known where images stand and how positions are counted, so that questions may share their
            image; a check on the loaded weights has the last word.
        image_labels: whether all images take as many positions, one placeholder each, so that ``data.image_labels``
            is available.
    """

    model_classes: tuple[Any, ...] = ()
    packs = True
    image_labels = False

    @property
    def code(self) -> str:
        """Hash of the source of a family from outside this package, part of every name under which results are kept."""
        files = source_files(f"{type(self).__module__}.{type(self).__qualname__}")
        return fingerprint(files) if files else ""

    def model_class(self, architecture: str) -> Any | None:
        """The class that loads an architecture; ``None`` if it is none of this family's."""
        return next((c for c in self.model_classes if c.__name__ == architecture), None)

    def template(self, processor: Any) -> Template:
        """The text around image, question and answer; by default as the processor's chat template has it."""
        return chat_template(processor, processor.image_token)

    def instructed(self, processor: Any, template: Template, instruction: str) -> Template:
        """A template with an instruction before every question: the system's turn, where the chat template has one.

        Where it has none before the image, the instruction is the first line of the user's words.
        """
        system = {"role": "system", "content": [{"type": "text", "text": instruction}]}
        shown = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        users = ({"role": "user", "content": content} for content in (shown, shown[1:]))
        try:
            about_image, text = (rendered(processor, [system, user], True).partition(QUESTION)[0] for user in users)
        except (TemplateError, ValueError, TypeError, KeyError, AttributeError):  # it knows no such turn
            about_image = text = ""
        before, token, _ = about_image.partition(template.image_token)
        lead = template.text_question.partition("{question}")[0]
        whole = all(one.count(instruction) == 1 and "'type'" not in one for one in (before, text))
        if token and whole and text.endswith(lead):
            behind = template.image_prefix.partition(token)[2]
            return replace(template, image_prefix=before + token + behind, text_prefix=text.removesuffix(lead))
        told = instruction.replace("{", "{{").replace("}", "}}") + "\n{question}"
        asked = (one.replace("{question}", told) for one in (template.question, template.text_question))
        return replace(template, **dict(zip(("question", "text_question"), asked, strict=True)))

    def language_model(self, model: Any) -> nn.Module:
        """What reads tokens: LoRA goes here and nowhere else."""
        return model.model.language_model

    def tower(self, model: Any) -> nn.Module:
        """What sees the image and is never trained."""
        return model.model.vision_tower

    def projector(self, model: Any) -> nn.Module | None:
        """What turns tower features into token embeddings; ``None`` if the tower gives token embeddings itself."""
        return None

    def image_shape(self, model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
        """Positions an image of ``size`` (width, height) takes, e.g. ``(576,)`` or rows and columns."""
        raise NotImplementedError

    def image_text(self, placeholder: str, shape: tuple[int, ...]) -> str:
        """What the processor writes for one image; by default a placeholder for every position."""
        return placeholder * math.prod(shape)

    def prefix(self, model: Any, processor: Any, encoder: Encoder, picture: Picture) -> list[int]:
        """Token ids before every question about a picture."""
        shape = self.image_shape(model, processor, picture.size())
        return encoder.prefix(self.image_text(encoder.template.image_token, shape))

    def natural_side(self, processor: Any) -> int:
        """Side in pixels at which a square picture is seen: drawn irrelevant images have it."""
        raise NotImplementedError

    def plain_inputs(self, model: Any, processor: Any, images: Sequence[Image], input_ids: Tensor) -> dict[str, Tensor]:
        """What transformers' own forward needs besides ids and mask: the route all else is compared with."""
        raise NotImplementedError

    def tower_features(self, model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
        """Vision features before the projector, a tensor an image; kept, since the tower is frozen."""
        raise NotImplementedError

    def project(self, model: Any, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Token embeddings ``[P, d]`` of images from their tower features and their sizes in pixels."""
        return list(features)

    def encoded(self, images: Sequence[Tensor]) -> Any:
        """Token embeddings ``[P, d]`` of images as transformers' forward takes them in place of pixels."""
        return BaseModelOutputWithPooling(pooler_output=list(images))  # type: ignore[arg-type]

    def position_ids(self, positions: Tensor, shapes: Sequence[tuple[int, ...] | None], start: int) -> Tensor:
        """``[B, T]`` or ``[axes, B, T]`` positions as the model counts them; by default one for each token.

        Args:
            positions: ``[B, T]`` counted in tokens.
            shapes: shape of each row's image; ``None`` for a row without.
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

    def render(content: list[dict[str, str]], answer: str | None = None) -> str:
        turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if answer is not None:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        return rendered(processor, turns, answer is None)

    with_image, without = render([image, question]), render([question])
    answered = render([image, question], ANSWER)
    before, _, after = with_image.partition(QUESTION)
    text_before, _, text_after = without.partition(QUESTION)
    image_token = next((token for token in image_tokens if before.count(token) == 1), None)
    if image_token is None or QUESTION not in without or ANSWER not in answered:
        raise UserError(
            f"{name}: its chat template does not put one image, {' or '.join(image_tokens)}, before the question (it "
            f"says {with_image!r}); such a model needs {OWN_FAMILY}"
        )
    end = before.index(image_token) + len(image_token)
    lead, _, behind = answered.partition(QUESTION)[2].partition(ANSWER)
    return Template(
        image_prefix=before[:end],
        text_prefix=text_before.rstrip(),  # a blank at its end would become part of the question's first token
        question=before[end:] + "{question}" + after,
        text_question=text_before[len(text_before.rstrip()) :] + "{question}" + text_after,
        answer=(lead.removeprefix(after) if lead.startswith(after) else "") + "{answer}",
        image_token=image_token,
        end=_first_special(processor.tokenizer, behind),
    )


def rendered(processor: Any, turns: Sequence[dict[str, Any]], ask: bool) -> str:
    """What the processor's chat template writes, without a beginning of sequence that the tokenizer adds itself."""
    text = str(processor.apply_chat_template(list(turns), add_generation_prompt=ask, tokenize=False))
    added = processor.tokenizer("x")["input_ids"][:1] == [processor.tokenizer.bos_token_id]
    return text.removeprefix(processor.tokenizer.bos_token) if added else text


OWN_FAMILY = "a family of its own (model.family, docs/model.md)"


def _first_special(tokenizer: Any, text: str) -> str:
    """The special token a text begins with, or the end of sequence."""
    tokens = tokenizer.tokenize(text.strip(), add_special_tokens=False)
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tokens[0] if tokens and tokens[0] in special else str(tokenizer.eos_token)
