"""Questions as token ids: private tokens, tokenizers of other kinds, and texts that a model cannot take."""

from dataclasses import replace

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from viker_lightning.data.encoding import Encoder
from viker_lightning.data.records import VQA, ImageGroup
from viker_lightning.errors import UserError
from viker_lightning.evaluation import predict
from viker_lightning.evaluation.fluency import score_texts
from viker_lightning.models.families.llava import TEMPLATE


def test_private_tokens(mllm):
    vqa = VQA("Where?", "They live in Tarn Hollow, Calmere.", ("Tarn Hollow, Calmere",))
    encoded = mllm.encoder.encode(vqa, image=True)
    decode = mllm.encoder.tokenizer.decode
    marked = decode([t for t, flag in zip(encoded.answer, encoded.private, strict=True) if flag])
    assert marked.replace(" ", "") == "TarnHollowCalmere"
    assert sum(encoded.starts) == 1
    assert decode([encoded.answer[encoded.starts.index(True)]]).strip() in "Tarn"
    with pytest.raises(UserError, match="'Rome' does not occur"):
        mllm.encoder.encode(VQA("Where?", "In Oslo.", ("Rome",)), image=True)


def sentencepiece_like():
    """A tokenizer as LLaVA-1.5 has it: a word mark before every piece of text, also behind <image>, and a BOS."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", "<image>", *(f"<0x{i:02X}>" for i in range(256))]
    texts = ["USER: where does this person live? ASSISTANT: This person lives in Tarn Hollow."] * 3
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_a_tokenizer_without_what_every_sequence_needs_is_named():
    tokenizer = sentencepiece_like()
    other = replace(TEMPLATE, image_prefix="USER: <picture>", image_token="<picture>")
    with pytest.raises(UserError, match=r"TokenizersBackend: the tokenizer has no image token '<picture>', or takes"):
        Encoder(tokenizer, other)
    with pytest.raises(
        UserError, match=r"has no end of sequence \(found '<end>'\), so no answer would end; set eos_tok"
    ):
        Encoder(tokenizer, replace(TEMPLATE, end="<end>"))
    tokenizer.eos_token = None
    with pytest.raises(UserError, match=r"has no end of sequence \(found None\)"):
        Encoder(tokenizer, TEMPLATE)


@pytest.mark.parametrize("image", [True, False])
def test_token_ids_of_a_sentencepiece_tokenizer(image):
    tokenizer = sentencepiece_like()
    encoder = Encoder(tokenizer, TEMPLATE)
    encoded = encoder.encode(VQA("where does this person live?", "In Tarn Hollow.", ("Tarn Hollow",)), image)
    middle = " <image>\n" if image else " "
    text = f"USER:{middle}where does this person live?\nASSISTANT: In Tarn Hollow."
    assert [*encoder.prefix("<image>" if image else None), *encoded.prompt, *encoded.answer] == [
        *tokenizer(text)["input_ids"],
        encoder.eos,
    ]
    marked = tokenizer.decode([t for t, flag in zip(encoded.answer, encoded.private, strict=True) if flag])
    assert marked.strip() == "Tarn Hollow" and sum(encoded.starts) == 1


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
