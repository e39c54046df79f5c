"""Packing, encoding, sampling, private parts, and the datamodule."""

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from viker_lightning.data.encoding import Encoder
from viker_lightning.data.packing import PADDING, PREFIX, in_budget, packed_mask, row_tokens
from viker_lightning.data.records import VQA, Person, Picture, Split
from viker_lightning.data.sampling import StepDataset, StepSampler
from viker_lightning.datasets.mllmu import MLLMU
from viker_lightning.datasets.private_spans import infer_private
from viker_lightning.errors import DataError, UserError
from viker_lightning.models.families.llava import TEMPLATE


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


@pytest.fixture
def crowd():
    picture = Picture(b"x", "x")
    return [Person(str(i), (picture,) * 3, tuple(VQA(f"q{i}{j}", "a") for j in range(7))) for i in range(5)]


@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_asks_every_question_once(crowd, epoch):
    sampler = StepSampler({"forget": crowd, "retain": crowd[:2]}, groups=2, questions_per_image=3)
    sampler.set_epoch(epoch)
    data = StepDataset(sampler.streams)
    steps = [data[step].content for step in sampler]
    assert len(steps) == len(sampler) == 8  # 5 people x 3 groups of at most 3 questions, two groups a step
    asked = [vqa.question for step in steps for group in step["forget"] for vqa in group.vqa]
    assert sorted(asked) == sorted(v.question for p in crowd for v in p.vqa)
    assert all(len(group.vqa) <= 3 for step in steps for group in step["forget"])
    assert all(len(step["retain"]) == 2 and all(g.person in "01" for g in step["retain"]) for step in steps)


def test_epochs_differ_and_repeat(crowd):
    sampler = StepSampler({"train": crowd}, 2, 3)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(StepSampler({"train": crowd}, 2, 3, seed=1)) != first


def test_processes_share_an_epoch(crowd):
    whole = list(StepSampler({"train": crowd}, 2, 3))
    parts = [list(StepSampler({"train": crowd}, 2, 3, rank=r, world_size=3)) for r in range(3)]
    assert len({len(p) for p in parts}) == 1
    merged = [step for round_ in zip(*parts, strict=True) for step in round_]
    assert merged[: len(whole)] == whole


def test_streams_of_the_stages(data):
    forget, retain = set(data.forget_ids), set(data.retain_ids)
    assert not forget & retain and len(forget) == 2 and len(retain) == 10
    ids = {}
    for stage in ("vanilla", "gold", "unlearn"):
        module = MLLMU("mini/ci", stage=stage)
        module.prepare_data()
        module.setup()
        ids[stage] = {name: {p.id for p in people} for name, people in module.streams.items()}
    assert ids["unlearn"] == {"forget": forget, "retain": retain}
    assert ids["vanilla"]["train"] - ids["gold"]["train"] == forget
    assert retain < ids["gold"]["train"] and "501" in ids["gold"]["train"]


def test_evaluation_splits(data):
    by_split = {split: data.evaluation(split) for split in Split}
    assert (
        {g.person for g in by_split[Split.FORGET]} == {g.person for g in by_split[Split.TEST]} == set(data.forget_ids)
    )
    assert {g.person for g in by_split[Split.RETAIN]} == set(data.retain_ids)
    training = {p.key for person in data.people() for p in person.images}
    assert all(g.image.key in training for g in by_split[Split.FORGET])
    assert not any(g.image.key in training for g in by_split[Split.TEST])
    assert all(q.private for g in by_split[Split.TEST] for q in g.vqa)
    assert not any(q.private for g in by_split[Split.GENERAL] for q in g.vqa)
    text = MLLMU("mini/ci", modality="text", splits=["forget"])
    text.setup()
    assert all(g.image is None and g.vqa for g in text.evaluation_groups())


def test_fingerprint_knows_what_is_forgotten(data):
    same, other = MLLMU("mini/ci", batch_size=3), MLLMU("mini/ci", forget=5)
    for module in (same, other):
        module.setup()
    assert same.fingerprint() == data.fingerprint() != other.fingerprint()


def test_infer_private():
    towns = ["Oslo", "Rome", "New York", "Paris", "Lima"]
    people = [Person(t, (), (VQA("Where?", f"This person lives in {t}."),)) for t in towns]
    people.append(
        Person("x", (), (VQA("What award?", "They won the Golden Fig award."), VQA("K?", "It is k.", ("k",))))
    )
    marked = infer_private(people)
    assert [p.vqa[0].private for p in marked[:5]] == [("Oslo",), ("Rome",), ("New York",), ("Paris",), ("Lima",)]
    assert "Golden Fig" in marked[5].vqa[0].private[0]
    assert marked[5].vqa[1].private == ("k",)


def test_every_seed_asks_the_same_people():
    """Else seeds, and the vanilla and gold models beside them, would be measured on other people."""
    asked = []
    for seed in (0, 1):
        module = MLLMU("mini/ci", max_people=3, seed=seed)
        module.prepare_data()
        module.setup()
        asked.append([group.person for group in module.evaluation(Split.RETAIN)])
    assert asked[0] == asked[1] and len(set(asked[0])) == 3


def test_bad_options():
    with pytest.raises(DataError, match="batch_size=0"):
        MLLMU("mini/ci", batch_size=0)
    with pytest.raises(DataError, match="max_people: found -1, expected at least 1"):
        MLLMU("mini/ci", max_people=-1)
    module = MLLMU("nowhere/at-all")
    with pytest.raises(DataError, match="neither a folder nor a dataset"):
        module.prepare_data()


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
