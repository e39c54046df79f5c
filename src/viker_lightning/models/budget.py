"""Token budgets: image groups cut so that no sequence and no pass gets too large."""

from collections.abc import Sequence
from dataclasses import replace

from viker_lightning.data.packing import in_budget, row_tokens
from viker_lightning.data.records import ImageGroup
from viker_lightning.errors import UserError

from .mllm import MLLM


def split_to_budget(
    mllm: MLLM, groups: Sequence[ImageGroup], max_questions: int | None = None
) -> list[list[ImageGroup]]:
    """Cuts image groups into parts for one pass each, in order, so that sequences and passes keep to the token budgets.

    Args:
        mllm: the model; its ``max_sequence_tokens`` and ``max_tokens`` are the budgets.
        groups: any number of groups with open questions; those too long for one sequence are split.
        max_questions: most questions in a part.

    Raises:
        UserError: if one question with its image is longer than a sequence may be.
    """
    rows = [row for group in groups for row in _split(mllm, group, max_questions)]
    parts = [rows[r.start : r.stop] for r in in_budget([_tokens(mllm, g) for g in rows], mllm.max_tokens, padded=True)]
    if max_questions is None:
        return parts
    counted = (in_budget([len(g.vqa) for g in part], max_questions) for part in parts)
    return [part[r.start : r.stop] for part, ranges in zip(parts, counted, strict=True) for r in ranges]


def _tokens(mllm: MLLM, group: ImageGroup) -> int:
    questions = [mllm.encoder.encode(vqa, group.image is not None) for vqa in group.vqa]
    return row_tokens(len(mllm.prefix(group.image)), questions)


def _split(mllm: MLLM, group: ImageGroup, max_questions: int | None) -> list[ImageGroup]:
    prefix, most = len(mllm.prefix(group.image)), mllm.max_sequence_tokens
    sizes = [_tokens(mllm, replace(group, vqa=(vqa,))) - prefix for vqa in group.vqa]
    if sizes and prefix + max(sizes) > most:
        question = group.vqa[sizes.index(max(sizes))].question
        raise UserError(
            f"model.engine.max_sequence_tokens={most}: image and question {question!r} of {group.person!r} take "
            f"{prefix + max(sizes)} tokens; raise it"
        )
    ranges = in_budget(sizes, most - prefix, max_questions if mllm.packs else 1)
    return [replace(group, vqa=group.vqa[r.start : r.stop]) for r in ranges]
