"""How answers are put: what the frozen model, as a language model without image, thinks of them; refusals; grammar."""

import re
from collections.abc import Sequence

from viker_lightning.data.packing import in_budget, row_tokens
from viker_lightning.data.records import VQA
from viker_lightning.metrics import is_refusal
from viker_lightning.metrics.prediction import Prediction
from viker_lightning.models import MLLM

LogProbs = dict[tuple[str, str], float]
"""Log-probability (nats) of a text behind a question."""

ANSWERS_PER_ROW = 16


def score_texts(mllm: MLLM, predictions: Sequence[Prediction], read: LogProbs | None = None) -> None:
    """Notes how likely answers and references of open questions are to the model before unlearning, without image.

    Both are read behind their question, the end of sequence left out. The frozen model was taught the people of the
    benchmark, so this tells nonsense from language, not a wrong answer from a right one.

    Args:
        mllm: a model with an adapter, or one that nothing is trained of.
        predictions: their ``answer_log_prob`` and ``reference_log_prob`` (nats) are set, except of blank answers.
        read: what the same frozen model has read before; added to.
    """
    read = {} if read is None else read
    plain = mllm.encoder.plain  # a broken model may spell special tokens
    texts = [
        (p, name, (plain(p.question), plain(said).strip()))
        for p in predictions
        if p.task == "generation"
        for name, said in (("answer_log_prob", p.answer), ("reference_log_prob", p.reference))
    ]
    new = {key for _, _, key in texts if key[1]} - read.keys()
    _read(mllm, sorted(new), read)
    for prediction, name, key in texts:
        if key[1]:
            setattr(prediction, name, read[key])


def note_form(predictions: Sequence[Prediction], grammar: re.Pattern[str] | None, refusals: Sequence[str]) -> None:
    """Notes which answers to open questions are refusals, and which are well-formed sentences, where that is known.

    Args:
        predictions: their ``refusal`` and ``well_formed`` are set.
        grammar: what a well-formed answer matches as a whole, whether it is true or not; ``None`` where nobody has
            listed all sentences. A refusal is well formed, too.
        refusals: sentences known to be refusals.
    """
    for p in predictions:
        if p.task == "generation":
            p.refusal = is_refusal(p.answer, refusals)
            if grammar is not None:
                p.well_formed = p.refusal or grammar.fullmatch(p.answer) is not None


def _read(mllm: MLLM, texts: Sequence[tuple[str, str]], read: LogProbs) -> None:
    """Reads texts; those behind the same question share its tokens."""
    encoded = [mllm.encoder.encode(VQA(*text), image=False) for text in texts]
    alike: dict[tuple[int, ...], list[int]] = {}  # those with the same prompt
    for i, q in enumerate(encoded):
        alike.setdefault(q.prompt, []).append(i)
    prefix = len(mllm.prefix(None))
    rows = [
        [part[i] for i in some]
        for part in alike.values()
        for some in in_budget(
            [row_tokens(0, [encoded[i]]) for i in part], mllm.max_sequence_tokens - prefix, ANSWERS_PER_ROW
        )
    ]
    sizes = {i: row_tokens(prefix, [encoded[j] for j in row]) for i, row in enumerate(rows)}
    order = sorted(sizes, key=lambda i: sizes[i])
    with mllm.frozen():
        for part in in_budget([sizes[i] for i in order], mllm.max_tokens, padded=True):
            chosen = [rows[order[i]] for i in part]
            batch = mllm.assemble([None] * len(chosen), [[encoded[i] for i in row] for row in chosen])
            parts = mllm.answer_tokens(batch).log_probs.cpu().split([len(q.answer) for q in batch.encoded])
            for i, log_probs in zip((i for row in chosen for i in row), parts, strict=True):
                read[texts[i]] = min(0.0, log_probs[:-1].double().sum().item())
