"""The plain route, one sequence a question, and the check that tells whether packed sequences may replace it."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from viker_lightning.data.packing import PackedBatch, in_budget
from viker_lightning.data.records import VQA, ImageGroup, Picture
from viker_lightning.errors import UserError

if TYPE_CHECKING:
    from .mllm import MLLM

log = logging.getLogger(__name__)


def plain_hidden(mllm: MLLM, batch: PackedBatch) -> Tensor:
    """Forwards every question by itself, as transformers runs the model: own mask, own positions, own vision pass.

    Args:
        mllm: the model.
        batch: a packed batch; only its prefixes, questions and pictures are used.

    Returns:
        ``[N, d]`` last hidden states at the positions that predict the answer tokens.
    """
    rows = [
        torch.tensor([*batch.prefixes[r], *q.prompt, *q.own[:-1]])
        for r, q in zip(batch.row_of, batch.encoded, strict=True)
    ]
    found = []
    for part in in_budget([len(row) for row in rows], mllm.max_tokens, padded=True):
        input_ids = pad_sequence([rows[i] for i in part], batch_first=True).to(mllm.device)
        mask = pad_sequence([torch.ones_like(rows[i]) for i in part], batch_first=True).to(mllm.device)
        pictures = [p for i in part if (p := batch.pictures[batch.row_of[i]]) is not None]
        images = [p.open() for p in pictures]
        more = mllm.family.plain_inputs(mllm.base, mllm.processor, images, input_ids) if images else {}
        hidden = mllm.base.model(input_ids=input_ids, attention_mask=mask, use_cache=False, **more).last_hidden_state
        for row, i in zip(hidden, part, strict=True):
            q, prefix = batch.encoded[i], batch.prefixes[batch.row_of[i]]
            start = len(rows[i]) - len(q.own)
            found += [row[[c % len(prefix) - 1 for c in q.lead]], row[start : start + len(q.own)]]
    return torch.cat(found)


def may_pack(mllm: MLLM) -> bool:
    """Whether questions may share their image: so if trying it on this model changes nothing.

    Raises:
        UserError: if neither route can be used.
    """
    check_head(mllm)
    warn_of_other_prompt(mllm)
    name, plain = type(mllm.base).__name__, "plain route, one sequence a question"
    if not mllm.family.packs:
        log.info("%s: %s (it is of no known family)", name, plain)
        return False
    error, limit = packing_error(mllm)
    route = "packed sequences" if error <= limit else plain
    log.info("%s: %s (packing changes logits by %.0e, limit %.0e)", name, route, error, limit)
    return error <= limit


def _check_group() -> ImageGroup:
    """Two questions of different lengths on one image that shows nothing."""
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((96, 64)).convert("RGB").save(buffer, "PNG")
    long = VQA("Which of the many things that can be seen here is it that comes to mind first?", "That is the light.")
    return ImageGroup("", Picture(buffer.getvalue(), "check"), vqa=(long, VQA("What is it?", "A round shape, grey.")))


def check_head(mllm: MLLM) -> None:
    """Makes sure that the model's logits are what its output embedding makes of the last hidden states.

    Raises:
        UserError: if they are scaled or capped besides, which no loss here would know of.
    """
    question = mllm.encoder.question("What is it?", False)
    input_ids = torch.tensor([[*mllm.prefix(None), *question.prompt]], device=mllm.device)
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "use_cache": False}
    training = mllm.training
    mllm.eval()
    with torch.no_grad():
        wanted = mllm.base(**inputs).logits[0, -1].float()
        found = mllm.head(mllm.base.model(**inputs).last_hidden_state[0, -1]).float()
    mllm.train(training)
    if (found - wanted).norm() > 1e-2 * wanted.norm():
        raise UserError(
            f"{type(mllm.base).__name__}: its logits are not what its output embedding gives (they are scaled or "
            "capped afterwards); such a model is not supported"
        )


def warn_of_other_prompt(mllm: MLLM) -> None:
    """Warns if the processor writes an image and a question otherwise than this project does: another template, say."""
    group, text = _check_group(), mllm.encoder.template
    assert group.image is not None
    asked = group.vqa[1].question
    mine = [*mllm.prefix(group.image), *mllm.encoder.question(asked, True).prompt]
    prompt = text.image_prefix + text.question.format(question=asked)
    try:
        found = list(mllm.processor(text=[prompt], images=[[group.image.open()]])["input_ids"][0])
    except (ValueError, TypeError, AttributeError) as error:
        found, reason = [], f"it cannot be called: {error}"
    else:
        reason = f"{len(found)} tokens there, {len(mine)} here"
    if found != mine:
        name = type(mllm.processor).__name__
        log.warning("%s writes an image and a question otherwise than this project does (%s)", name, reason)


def packing_error(mllm: MLLM) -> tuple[float, float]:
    """How much packing changes the logits of this model: two questions on one image, by both routes.

    Families in which packing is not exact (image tokens that see what follows them, attention windows, positions that
    depend on the whole sequence) are found out here, whatever they are called.

    Returns:
        Norm of the change divided by the norm of the centred logits, and what rounding explains in this model's type.
    """
    training = mllm.training
    mllm.eval()
    with torch.no_grad():
        batch = mllm.pack([_check_group()])
        plain = mllm.head(plain_hidden(mllm, batch)).float()
        packed = mllm.head(mllm.hidden(batch)[batch.rows, batch.columns]).float()
    mllm.train(training)
    scale = (plain - plain.mean(-1, keepdim=True)).norm()
    autocast = torch.is_autocast_enabled(mllm.device.type)
    exact = plain.dtype == mllm.head.weight.dtype and not autocast and not mllm.quantized
    return ((packed - plain).norm() / scale.clamp_min(1e-30)).item(), 1e-3 if exact else 5e-2
