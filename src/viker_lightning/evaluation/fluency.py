"""What the frozen model, as a language model without image, thinks of answers."""

from __future__ import annotations

from collections.abc import Sequence

from viker_lightning.data.packing import in_budget, row_tokens
from viker_lightning.data.records import VQA
from viker_lightning.models import MLLM

from .predict import Prediction


def score_texts(mllm: MLLM, predictions: Sequence[Prediction]) -> None:
    """Notes how likely answers and references of open questions are to the model before unlearning, without image.

    Both are read behind their question, the end of sequence left out. The frozen model was taught the people of the
    benchmark, so this tells nonsense from language, not a wrong answer from a right one.

    Args:
        mllm: a model with an adapter, or one that nothing is trained of.
        predictions: their ``answer_log_prob`` and ``reference_log_prob`` (nats) are set, except of blank answers.
    """
    encoder = mllm.encoder
    texts = [
        (p, name, encoder.encode(VQA(p.question, text), image=False))
        for p in predictions
        if p.task == "generation"
        for name, said in (("answer_log_prob", p.answer), ("reference_log_prob", p.reference))
        if (text := said.replace(encoder.template.image_token, "").strip())
    ]
    texts.sort(key=lambda t: len(t[2].prompt) + len(t[2].answer))
    prefix = len(mllm.prefix(None))
    with mllm.frozen():
        for part in in_budget([row_tokens(prefix, [q]) for _, _, q in texts], mllm.max_tokens, padded=True):
            chosen = [texts[i] for i in part]
            tokens = mllm.answer_tokens(mllm.assemble([None] * len(chosen), [[q] for _, _, q in chosen]))
            parts = tokens.log_probs.cpu().split([len(q.answer) for _, _, q in chosen])
            for (prediction, name, _), log_probs in zip(chosen, parts, strict=True):
                setattr(prediction, name, min(0.0, log_probs[:-1].double().sum().item()))
