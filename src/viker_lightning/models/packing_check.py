"""Whether packed sequences may replace the plain route: tried on the loaded weights, with two questions on an image.

Families in which packing is not exact (image tokens that see what follows them, attention windows, positions that
depend on the whole sequence) are found out so, whatever they are called.
"""

import io
import logging
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from viker_lightning.data.encoding import Encoder
from viker_lightning.data.records import VQA, ImageGroup, Picture
from viker_lightning.errors import UserError

log = logging.getLogger(__name__)


def check_group() -> ImageGroup:
    """Two questions of different lengths on one image that shows nothing."""
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((96, 64)).convert("RGB").save(buffer, "PNG")
    long = VQA("Which of the many things that can be seen here is it that comes to mind first?", "That is the light.")
    return ImageGroup("", Picture(buffer.getvalue(), "check"), vqa=(long, VQA("What is it?", "A round shape, grey.")))


def check_head(model: Any, head: nn.Module, input_ids: Tensor) -> None:
    """Refuses a model whose logits, for ``[1, T]`` ids, are scaled or capped besides: no loss here would know of it."""
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "use_cache": False}
    expected = model(**inputs).logits[0, -1].float()
    logits = head(model.model(**inputs).last_hidden_state[0, -1]).float()
    if (logits - expected).norm() > 1e-2 * expected.norm():
        raise UserError(
            f"{type(model).__name__}: its logits are not what its output embedding gives (they are scaled or capped "
            "afterwards); such a model is not supported"
        )


def check_image_token(config: Any, encoder: Encoder) -> None:
    """Makes sure that the tokenizer has the token behind which the model looks for an image; an error names its id."""
    found, name = getattr(config, "image_token_id", None), encoder.tokenizer.name_or_path
    if found is not None and found not in encoder.tokenizer.get_vocab().values():
        raise UserError(
            f"{name}: image_token_id in config.json is {found}, which the tokenizer does not have; give the tokenizer "
            "that belongs to the model"
        )


def warn_of_other_prompt(processor: Any, encoder: Encoder, prefix: list[int], group: ImageGroup) -> None:
    """Warns if the processor writes an image and a question otherwise than this project does: another template, say."""
    assert group.image is not None
    question, template = group.vqa[1].question, encoder.template
    ours = [*prefix, *encoder.question(question, True).prompt]
    prompt = template.image_prefix + template.question.format(question=question)
    try:
        theirs = list(processor(text=[prompt], images=[[group.image.open()]])["input_ids"][0])
    except (ValueError, TypeError, AttributeError) as error:
        theirs, reason = [], f"it cannot be called: {error}"
    else:
        reason = f"{len(theirs)} tokens there, {len(ours)} here"
    if theirs != ours:
        name = type(processor).__name__
        log.warning("%s writes an image and a question otherwise than this project does (%s)", name, reason)


def packing_is_exact(name: str, plain: Tensor, packed: Tensor, rounded: bool) -> bool:
    """Whether packing changes ``[N, V]`` logits by no more than rounding explains; says which route is taken."""
    scale = (plain - plain.mean(-1, keepdim=True)).norm()
    error, limit = ((packed - plain).norm() / scale.clamp_min(1e-30)).item(), 5e-2 if rounded else 1e-3
    route = "packed sequences" if error <= limit else "plain route, one sequence a question"
    log.info("%s: %s (packing changes logits by %.0e, limit %.0e)", name, route, error, limit)
    return error <= limit
