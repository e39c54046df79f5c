"""Texts that a model's tokenizer does not take for text, and those it has no positions for: one line each."""

import pytest

from viker_lightning.data.records import VQA, ImageGroup
from viker_lightning.errors import UserError
from viker_lightning.evaluation import predict
from viker_lightning.evaluation.fluency import score_texts


def refused(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("token", ["</s>", "<image>", "<pad>"])
def test_special_tokens_within_texts(mllm, token, image):
    for vqa in (VQA(f"Who is {token} this?", "Ann."), VQA("Who is this?", f"It is{token} Ann.")):
        said = refused(mllm.encoder.encode, vqa, image)
        assert f"holds {token!r}, a special token of this model; write it in another way, or remove the row" in said
        assert said.startswith("data: the text '")
    mllm.encoder.encode(VQA("Is 3 < 4 <b>or</b> [not]?", "It is!"), image)


def test_what_a_model_says_is_judged_all_the_same(mllm):
    """A model that has lost its mind may spell a special token, which is no fault of the data."""
    found = predict(mllm, [ImageGroup("Ann", None, "forget", (VQA("Who is this?", "It is Ann."),))])
    found[0].answer = "It is <</s>/s> <image> Ann."
    score_texts(mllm, found)
    assert found[0].answer_log_prob < 0
    assert mllm.encoder.plain(found[0].answer) == "It is   Ann."


def test_answers_longer_than_the_positions(mllm, groups):
    room = mllm.encoder.room
    assert room == mllm.base.config.get_text_config().max_position_embeddings
    long = VQA("Who is this?", "Ann " * room)
    said = refused(mllm.encoder.encode, long, False)
    assert said.startswith("data: the question 'Who is this?") and said.endswith("has 2048 positions; shorten it")


def test_the_image_takes_positions_too(mllm, groups):
    group = groups[0]
    question = mllm.encoder.encode(group.vqa[0], True)
    needed = len(mllm.prefix(group.image)) + len(question.prompt) + len(question.answer) - 1
    mllm.encoder.room = needed
    mllm.assemble([group.image], [[question]])
    mllm.encoder.room = needed - 1
    said = refused(mllm.assemble, [group.image], [[question]])
    assert f"takes {needed} tokens with its image and its answer of {len(question.answer)}, but this model has" in said
