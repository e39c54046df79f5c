"""Packed rows: layout, mask, answers behind one prompt, parts within a budget."""

import pytest
import torch

from viker_lightning.data.encoding import Encoded
from viker_lightning.data.packing import PADDING, PREFIX, PROMPT, assemble, in_budget, packed_mask, row_tokens
from viker_lightning.data.records import VQA


def test_packed_layout(mllm, groups):
    batch = mllm.pack(groups)
    prefix = len(mllm.prefix(groups[0].image))
    assert batch.n_questions == 8 and len(batch.images) == 3
    for r, group in enumerate(groups):
        segments = batch.segments[r]
        assert (segments == PREFIX).sum() == prefix
        assert segments.max() == len(group.vqa)
        for j in range(1, len(group.vqa) + 1):
            positions = batch.positions[r][segments == j]
            assert positions.tolist() == list(range(prefix, prefix + len(positions)))
    for n in range(len(batch.labels)):  # the label of a position is the next token of its question
        r, c = batch.rows[n], batch.columns[n]
        if n + 1 < len(batch.labels) and batch.question[n + 1] == batch.question[n]:
            assert batch.input_ids[r, c + 1] == batch.labels[n]
        else:
            assert batch.labels[n] == mllm.encoder.eos


def test_an_answer_that_begins_in_the_prefix():
    """As where an instruction's end and the answer's first token are one: it is predicted before the prefix ends."""
    asked = Encoded((9,), (21, 22), (False, True), (True, True))
    plain = Encoded((), (31, 32), (True, False), (True, True))
    begun = Encoded((), (41, 42, 43, 44), (False, True, False, True), (True,) * 4, (1, -1))
    batch = assemble([[1, 2, 3, 4], [5]], [[asked, begun], [plain]], [None, None])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 9, 21, 43], [5, 31, 0, 0, 0, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 5, 4], [0, 1, 0, 0, 0, 0, 0]]
    assert batch.segments.tolist() == [[PREFIX] * 4 + [1, 1, 2], [PREFIX, 1] + [PADDING] * 5]
    assert batch.branches[0].tolist() == [PROMPT] * 5 + [1, 1]
    assert batch.columns.tolist() == [4, 5, 0, 2, 3, 6, 0, 1]
    assert batch.labels.tolist() == [21, 22, 41, 42, 43, 44, 31, 32]
    assert batch.private.tolist() == [False, True, False, True, False, True, True, False]
    assert batch.rows.tolist() == [0] * 6 + [1] * 2 and batch.question.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="need the prefix in the same row"):
        assemble([[]], [[plain]], [None])


def test_rows_without_questions_index_nothing():
    batch = assemble([[1, 2], []], [[], []], [None, None])
    assert batch.input_ids.dtype == batch.rows.dtype == batch.columns.dtype == batch.labels.dtype == torch.long
    assert batch.private.dtype == torch.bool and not len(batch.labels)
    assert assemble([[]], [[]], [None]).input_ids.dtype == torch.long


def test_mask():
    segments = torch.tensor([[PREFIX, PREFIX, 1, 1, 2, PADDING]])
    mask = packed_mask(segments, torch.zeros_like(segments))[0, 0].int().tolist()
    assert mask == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    there = torch.tensor([[True, False]])
    cached = packed_mask(torch.tensor([[1, 1, 2]]), torch.zeros(1, 3, dtype=torch.long), there)[0, 0].int().tolist()
    assert cached == [[1, 0, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 0, 0, 1]]
    answers = torch.tensor([[0, 0, 0, 1, 2]])  # a prefix token, two of a prompt, one of either answer
    mask = packed_mask(torch.tensor([[PREFIX, 1, 1, 1, 1]]), answers)[0, 0].int().tolist()
    assert mask[3:] == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 1]]


def test_answers_share_their_prompt(mllm, groups):
    """Options behind one prompt cost the prompt once, and score as if each were asked by itself."""
    picture, vqa = groups[0].image, groups[0].vqa[0]
    options = [
        mllm.encoder.encode(VQA(vqa.question, text), True) for text in (vqa.answer, "No.", "Somebody else here.")
    ]
    together = mllm.assemble([picture], [options])
    prefix = len(mllm.prefix(picture))
    said = sum(len(o.answer) - 1 for o in options)
    assert together.input_ids.shape[1] == row_tokens(prefix, options) == prefix + len(options[0].prompt) + said
    tokens = mllm.answer_tokens(together)
    for i, option in enumerate(options):
        alone = mllm.answer_tokens(mllm.assemble([picture], [[option]]))
        torch.testing.assert_close(tokens.logits[tokens.question == i], alone.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("sizes", "most", "items", "padded", "parts"),
    [
        ([3, 3, 3, 3], 6, None, False, [2, 2]),
        ([3, 3, 3, 3], 100, 3, False, [3, 1]),
        ([9, 1, 1, 1], 4, None, False, [1, 3]),
        ([1, 1, 5, 5], 8, None, True, [2, 1, 1]),
        ([], 4, None, False, []),
    ],
)
def test_budget(sizes, most, items, padded, parts):
    assert [len(r) for r in in_budget(sizes, most, items, padded)] == parts
    assert [i for r in in_budget(sizes, most, items, padded) for i in r] == list(range(len(sizes)))


def plain_parts(sizes, most, items, padded):
    """The longest part that fits, then the longest of what is left, by trying."""
    start = 0
    while start < len(sizes):
        stop = start + 1
        while stop < len(sizes):
            part = sizes[start : stop + 1]
            room = max(part) * len(part) if padded else sum(part)
            if room > most or (items is not None and len(part) > items):
                break
            stop += 1
        yield range(start, stop)
        start = stop


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("items", [None, 1, 3])
def test_parts_are_as_long_as_the_budget_allows(items, padded):
    draw = torch.Generator().manual_seed(0)
    for most in (1, 2, 7, 20):
        for length in (0, 1, 2, 30):
            sizes = torch.randint(1, 9, (length,), generator=draw).tolist()
            assert [*in_budget(sizes, most, items, padded)] == [*plain_parts(sizes, most, items, padded)]


def test_a_part_is_not_padded_unless_it_is_said():
    assert [*in_budget([1, 5, 1, 1], 8)] == [range(4)] and len([*in_budget([1, 5, 1, 1], 8, padded=True)]) > 1
