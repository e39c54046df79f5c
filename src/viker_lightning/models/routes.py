"""The plain route, one sequence a question, and the check that tells whether packed sequences may replace it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from viker_lightning.data.packing import PackedBatch, in_budget
from viker_lightning.data.records import VQA, ImageGroup, Picture

if TYPE_CHECKING:
    from .mllm import MLLM


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


def packing_error(mllm: MLLM) -> tuple[float, float]:
    """How much packing changes the logits of this model: two questions on one image, by both routes.

    Families in which packing is not exact (image tokens that see what follows them, attention windows, positions that
    depend on the whole sequence) are found out here, whatever they are called.

    Returns:
        Norm of the change divided by the norm of the centred logits, and what rounding explains in this model's type.
    """
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((96, 64)).convert("RGB").save(buffer, "PNG")
    long = VQA("Which of the many things that can be seen here is it that comes to mind first?", "That is the light.")
    group = ImageGroup("", Picture(buffer.getvalue(), "check"), vqa=(long, VQA("What is it?", "A round shape, grey.")))
    training = mllm.training
    mllm.eval()
    with torch.no_grad():
        batch = mllm.pack([group])
        plain = mllm.head(plain_hidden(mllm, batch)).float()
        packed = mllm.head(mllm.hidden(batch)[batch.rows, batch.columns]).float()
    mllm.train(training)
    scale = (plain - plain.mean(-1, keepdim=True)).norm()
    exact = plain.dtype == mllm.head.weight.dtype and not torch.is_autocast_enabled(mllm.device.type)
    return ((packed - plain).norm() / scale.clamp_min(1e-30)).item(), 1e-3 if exact else 5e-2
