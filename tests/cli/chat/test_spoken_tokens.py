"""Tokens of an answer against plain lines: the whole sequence read again for each, as transformers reads it."""

import math

import pytest
import torch

from support.families import random_model
from support.marks import bf16_attention
from viker_lightning.cli.chat.spoken_tokens import Token, entropies, mark_private, probabilities, say
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.errors import UserError

QUESTION = "Where does this person live?"


def plainly(mllm, picture, question, most):
    """Id, entropy and probability of each token of the greedy answer."""
    prompt = [*mllm.prefix(picture), *mllm.encoder.question(question, picture is not None).prompt]
    found = []
    while len(found) < most:
        ids = torch.tensor([[*prompt, *(token for token, _, _ in found)]])
        images = [] if picture is None else [picture.open()]
        more = mllm.family.plain_inputs(mllm.base, mllm.processor, images, ids) if images else {}
        with torch.no_grad():
            logits = mllm.base(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **more).logits
        p = logits[0, -1].double().softmax(-1).tolist()
        token = max(range(len(p)), key=p.__getitem__)
        found.append((token, -sum(x * math.log(x) for x in p if x > 0), p[token]))
        if token in mllm.stops:
            break
    return found


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "gemma3"])
@pytest.mark.parametrize("shown", [True, False])
def test_tokens_are_those_of_plain_lines(family, shown):
    mllm = random_model(family)
    picture = irrelevant_images("scenes", 1, size=56)[0] if shown else None
    assert mllm.packs == (family != "gemma3")
    mllm.head.register_forward_hook(lambda head, given, logits: logits + quiet(mllm, logits))
    plain = plainly(mllm, picture, QUESTION, 6)
    found = say(mllm, picture, QUESTION, 6)
    assert [token.text for token in found] == mllm.encoder.texts([token for token, _, _ in plain])
    assert [token.entropy for token in found] == pytest.approx([h for _, h, _ in plain], rel=1e-3)
    assert [token.probability for token in found] == pytest.approx([p for _, _, p in plain], rel=1e-3)
    assert [token.ends for token in found] == [token in mllm.stops for token, _, _ in plain]


def quiet(mllm, logits):
    """Keeps a random model from saying placeholders of images, which could not be read again."""
    added = torch.zeros(logits.shape[-1])
    for token, i in mllm.encoder.tokenizer.get_vocab().items():
        added[i] = -1e4 if any(part in token for part in ("image", "video", "vision")) else 0.0
    return added


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "gemma3"])
def test_an_answer_may_hold_what_stands_for_an_image(family):
    mllm = random_model(family)
    picture = irrelevant_images("scenes", 1, size=56)[0]
    loud = torch.zeros(len(mllm.head.weight))
    loud[mllm.base.config.image_token_id] = 100.0
    mllm.head.register_forward_hook(lambda head, given, logits: logits + loud)
    found = say(mllm, picture, QUESTION, 3)
    (text,) = mllm.encoder.texts([mllm.base.config.image_token_id])
    assert [token.text for token in found] == [text] * 3 and not any(token.ends for token in found)
    assert all(token.probability == pytest.approx(1.0) and token.entropy < 1e-4 for token in found)


@bf16_attention
def test_numbers_are_in_fp32_whatever_the_model_is_kept_in():
    mllm = random_model("llava").to(torch.bfloat16).requires_grad_(False)
    (first, *_) = say(mllm, None, QUESTION, 1)
    batch = mllm.assemble([None], [[mllm.encoder.question(QUESTION, False)]])
    with torch.no_grad():
        states = mllm.hidden(batch)[batch.rows[:1], batch.columns[:1]]
        logits = states.float() @ mllm.head.weight.float().T
    assert first.entropy == pytest.approx(float(entropies(logits)), abs=1e-6)
    assert first.probability == pytest.approx(float(logits.softmax(-1).max()), rel=1e-5)


def test_an_answer_ends_where_it_ends():
    mllm = random_model("llava")
    loud = torch.zeros(len(mllm.head.weight))
    loud[mllm.encoder.eos] = 100.0
    mllm.head.register_forward_hook(lambda head, given, logits: logits + loud)
    (token,) = say(mllm, None, QUESTION, 6)
    assert token.ends and token.probability == pytest.approx(1.0) and token.entropy == pytest.approx(0.0, abs=1e-4)


def test_entropy_and_probability():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [100.0, 0.0, 0.0, 0.0], [0.0, math.log(3), -math.inf, -math.inf]])
    assert entropies(logits).tolist() == pytest.approx(
        [math.log(4), 0.0, -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))], abs=1e-6
    )
    assert probabilities(logits, [2, 0, 1]).tolist() == pytest.approx([0.25, 1.0, 0.75])


@pytest.mark.parametrize(
    ("private", "marked"),
    [
        (["Oslo, Norway"], [" Os", "lo", " norway"]),
        (["Oslo"], [" Os", "lo"]),
        (["She lives"], ["She", " lives"]),
        (["slo"], []),
        ([], []),
    ],
)
def test_private_spans_in_an_answer(private, marked):
    texts = ["She", " lives", " in", " Os", "lo", ",", " norway", "."]
    tokens = [Token(text, 0.5, 0.5) for text in texts] + [Token("</s>", 0.1, 0.9, ends=True)]
    found = mark_private(tokens, private)
    assert [token.text for token in found if token.private] == marked
    assert [token.text for token in found] == [token.text for token in tokens]


@pytest.mark.parametrize("question", ["Who is </s> it?", "Is this <image> a person?"])
def test_a_question_with_a_special_token(question):
    with pytest.raises(UserError, match="a special token of this model"):
        say(random_model("llava"), None, question, 3)
