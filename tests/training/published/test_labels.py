"""Which tokens count in a loss: as published, against transformers' own loss on the text of MLLMU-Bench's script."""

import io
from dataclasses import replace

import pytest
import torch
from PIL import Image

from support.families import random_model
from support.plain_route import plain_logits
from viker_lightning.data.datasets import CLEAR, MLLMU
from viker_lightning.data.encoding import Encoder
from viker_lightning.data.packing import assemble
from viker_lightning.data.records import VQA, ImageGroup, Labels, Picture
from viker_lightning.errors import UserError
from viker_lightning.ideal import reference_key
from viker_lightning.methods import IDK, NPO, GradientAscent, ViKeR
from viker_lightning.models import split_to_budget
from viker_lightning.training import published

QUESTIONS = (
    VQA("Where does this person live?", "In Tarn Hollow.", ("Tarn Hollow",)),
    VQA("What is it that they do every day of the week?", "They help."),
    VQA("Who?", "An assistant of a system, as far as it is known."),
)


def picture(width, height, seed):
    noise = torch.randint(0, 255, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    buffer = io.BytesIO()
    Image.fromarray(noise.numpy()).save(buffer, "PNG")
    return Picture(buffer.getvalue(), f"noise {seed}")


@pytest.fixture(params=["llava", "qwen2_vl", "qwen2_5_vl", "llava_next", "windowed"])
def model(request):
    """A placeholder for each image position; prompts with and without a mark that ends a turn; either route."""
    return random_model(request.param)


def labelled(group, labels):
    return replace(group, vqa=tuple(replace(vqa, labels=labels) for vqa in group.vqa))


@pytest.fixture
def groups():
    shapes = [(84, 84), (140, 70)]
    return [ImageGroup(str(i), picture(*shape, i), vqa=QUESTIONS[i:]) for i, shape in enumerate(shapes)]


def turn(model):
    """What ends an answer in the published text: nothing for LLaVA, the chat template's own mark for others."""
    end = model.encoder.tokenizer.decode([model.encoder.eos])
    return end if end in model.encoder.template.question else ""


def placeholder(model):
    return model.encoder.tokenizer.get_vocab()[model.encoder.template.image_token]


def script(model, vqa, image, placeholders=False):
    """The loss of MLLMU-Bench's collate function on one question, and over how many tokens it is a mean."""
    text = model.encoder.template
    said = (text.image_prefix + text.question) if image else (text.text_prefix + text.text_question)
    said = said.format(question=vqa.question) + text.answer.format(answer=vqa.answer) + turn(model)
    inputs = model.processor(images=image.open() if image else None, text=said, return_tensors="pt")
    labels = inputs["input_ids"].clone()
    if not placeholders:  # as the model itself does in transformers 4.45.1, if the processor has no patch_size
        labels[labels == placeholder(model)] = -100
    return model.base(**inputs, labels=labels).loss, int((labels[:, 1:] != -100).sum())


def test_published_labels_give_the_scripts_loss(model, groups):
    """P6, M3: prompt and question are in the published loss, the end of sequence is not."""
    groups = [*groups, ImageGroup("text", None, vqa=QUESTIONS)]
    asked = [(vqa, g.image) for g in groups for vqa in g.vqa]
    with torch.no_grad():
        losses, counts = zip(*(script(model, *one) for one in asked), strict=True)
        wanted = sum(loss * n for loss, n in zip(losses, counts, strict=True)) / sum(counts)
        tokens = model.answer_tokens(model.pack([labelled(g, Labels.TEXT) for g in groups]))
        assert len(tokens.labels) == sum(counts)
        torch.testing.assert_close(tokens.mean(-tokens.log_probs), wanted, rtol=1e-4, atol=1e-4)
        corrected = model.answer_tokens(model.pack(groups))
        assert len(corrected.labels) < len(tokens.labels) / 2
        assert (corrected.mean(-corrected.log_probs) - wanted).abs() > 1e-2


def test_packed_equals_plain(model, groups):
    groups = [labelled(g, Labels.TEXT) for g in groups]
    fast = model.answer_tokens(model.pack(groups))
    logits, plain = plain_logits(model, groups)
    assert torch.equal(fast.labels, plain.labels)
    torch.testing.assert_close(fast.logits, logits, rtol=1e-4, atol=1e-4)


def test_image_tokens_do_not_count_unless_asked(model, groups):
    """The same labels with an image that takes more positions, and none of them a placeholder."""
    batch = model.pack([labelled(groups[0], Labels.TEXT), labelled(groups[1], Labels.TEXT)])
    assert placeholder(model) not in batch.labels.tolist()
    large = model.pack([labelled(replace(groups[0], image=picture(140, 140, 3)), Labels.TEXT)])
    assert torch.equal(large.labels, batch.labels[: len(large.labels)])


def test_image_labels_give_the_scripts_other_loss(groups):
    """P6, with ``data.image_labels``: what the script's labels are where the processor is saved with patch_size."""
    model = random_model("llava")
    model.encoder = Encoder(model.encoder.tokenizer, model.encoder.template, model.image_positions)
    groups = [*groups, ImageGroup("text", None, vqa=QUESTIONS)]
    with torch.no_grad():
        found = [script(model, vqa, g.image, placeholders=True) for g in groups for vqa in g.vqa]
        count = sum(n for _, n in found)
        wanted = sum(loss * n for loss, n in found) / count
        batch = model.pack([labelled(g, Labels.TEXT) for g in groups])
        tokens = model.answer_tokens(batch)
        assert len(tokens.labels) == count
        assert (batch.labels == placeholder(model)).sum() == 16 * sum(len(g.vqa) for g in groups if g.image)
        torch.testing.assert_close(tokens.mean(-tokens.log_probs), wanted, rtol=1e-4, atol=1e-4)
        answers = model.pack(groups)
        assert placeholder(model) not in answers.labels.tolist()


def test_image_labels_need_images_of_one_size(tmp_path):
    with pytest.raises(UserError, match=r"data.image_labels: needs LLaVA-1.5, whose images all take as many positions"):
        _ = random_model("qwen2_vl").image_positions
    with pytest.raises(UserError, match=r"data.image_labels: found true, but data.protocol is not published"):
        MLLMU(str(tmp_path), image_labels=True)
    counted = MLLMU(str(tmp_path), protocol="published", image_labels=True)
    assert published.authors_of(counted).placeholders
    assert not published.authors_of(MLLMU(str(tmp_path), protocol="published")).placeholders
    assert "--data.image_labels=true" in counted.vanilla_options()


def test_parts_and_gradients(model, groups):
    """Cut into sequences and passes, the published labels give the gradient of the whole."""
    groups = [labelled(g, Labels.TEXT) for g in groups]

    def gradient(parts):
        model.zero_grad()
        total = sum(len(model.pack(part).labels) for part in parts)
        for part in parts:
            tokens = model.answer_tokens(model.pack(part))
            tokens.step = (total, 1)
            tokens.mean(-tokens.log_probs).backward()
        return torch.cat([p.grad.flatten() for p in model.base.model.language_model.parameters()])

    whole = gradient([groups])
    model.max_sequence_tokens = model.max_tokens = 110
    parts = split_to_budget(model, groups)
    assert len(parts) > 2
    assert (gradient(parts) - whole).norm() / whole.norm() < 1e-4


def test_private_tokens_stay_where_they_are(model):
    vqa = QUESTIONS[0]
    known = {labels: model.encoder.encode(replace(vqa, labels=labels), True) for labels in Labels}
    private = {k: [t for t, flag in zip(q.answer, q.private, strict=True) if flag] for k, q in known.items()}
    assert private[Labels.TEXT] == private[Labels.UNENDED] == private[Labels.ANSWER] != []
    assert sum(known[Labels.TEXT].starts) == 1
    ended = turn(model) != ""
    assert known[Labels.ANSWER].answer[-1] == model.encoder.eos
    assert (known[Labels.UNENDED].answer[-1] == model.encoder.eos) == ended
    assert len({reference_key([], q) for q in known.values()}) == (2 if ended else 3)


def test_labels_of_the_prefix_need_the_prefix(model):
    question = model.encoder.encode(replace(QUESTIONS[0], labels=Labels.TEXT), True)
    with pytest.raises(ValueError, match="need the prefix in the same row"):
        assemble([[]], [[question]], [None])


def test_who_is_defined_on_answers():
    """ViKeR's ideal distribution is one of answers, and refusals are answers: nothing else counts in their losses."""
    assert ViKeR().answers_only and IDK().answers_only
    assert not GradientAscent().answers_only and not NPO().answers_only


def test_clear_trains_the_answer_and_a_space():
    """2.2: ``USER: <image>\\n{q} ASSISTANT: {a} ``, labels from the answer on, no end of sequence."""
    model = random_model("llava")
    authors = published.authors_of(CLEAR(protocol="published"))
    vqa = VQA("Who is it?", "Ada.", labels=authors.labels)
    encoder = Encoder(model.encoder.tokenizer, authors.template(model.encoder.template))
    asked = encoder.encode(vqa, True)
    decode = encoder.tokenizer.decode
    assert decode(asked.prompt) == "\nWho is it? ASSISTANT:" and decode(asked.answer) == " Ada. "
    own = model.encoder.encode(replace(vqa, labels=Labels.ANSWER), True)
    assert decode(own.prompt) == "\nWho is it?\nASSISTANT:" and own.answer[-1] == encoder.eos
