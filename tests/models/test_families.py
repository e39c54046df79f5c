"""What every family owes the engine: packed or not, the model says what transformers' own forward says."""

import io
import logging
from dataclasses import replace

import pytest
import torch
from PIL import Image
from transformers import Blip2Config, Blip2ForConditionalGeneration, InternVLForConditionalGeneration

from support.families import FAMILIES, random_model
from support.marks import quick
from support.plain_route import plain_ideal, plain_logits
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import VQA, ImageGroup, Picture
from viker_lightning.errors import UserError
from viker_lightning.ideal import ImagePrefixes, mean_distribution
from viker_lightning.models import MLLM, Lora, generate, write_merged
from viker_lightning.models.families import Unknown, import_family

QUESTIONS = (
    VQA("Where does this person live?", "In Tarn Hollow.", ("Tarn Hollow",)),
    VQA("What is it that they do every day of the week?", "They help."),
    VQA("Who?", "An assistant of a system, as far as it is known."),
)


def picture(width: int, height: int, seed: int) -> Picture:
    noise = torch.randint(0, 255, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    buffer = io.BytesIO()
    Image.fromarray(noise.numpy()).save(buffer, "PNG")
    return Picture(buffer.getvalue(), f"noise {seed}")


@pytest.fixture
def groups():
    shapes = [(84, 84), (140, 70)]
    return [ImageGroup(str(i), picture(*shape, i), vqa=QUESTIONS[i:]) for i, shape in enumerate(shapes)]


BY_DEFAULT = ("llava", "qwen2_vl", "smolvlm", "windowed")


@pytest.fixture(params=quick([*FAMILIES, "windowed"], BY_DEFAULT))
def model(request):
    return random_model(request.param)


def test_packed_equals_plain(model, groups):
    fast = model.answer_tokens(model.pack(groups))
    logits, plain = plain_logits(model, groups)
    assert torch.equal(fast.labels, plain.labels)
    torch.testing.assert_close(fast.logits, logits, rtol=1e-4, atol=1e-4)


def test_token_ids_are_the_processors(model, groups):
    text = model.encoder.template
    for group in groups:
        question = text.image_prefix + text.question.format(question=group.vqa[0].question)
        ids = model.processor(images=group.image.open(), text=question)["input_ids"][0]
        asked = model.encoder.question(group.vqa[0].question, True)
        assert [*model.prefix(group.image), *asked.prompt] == list(ids)


def test_natural_side_is_seen_whole(model):
    if not model.family.packs:
        pytest.skip("positions of an image are known from the processor only")
    side = model.family.natural_side(model.processor)
    shape = model.family.image_shape(model.base, model.processor, (side, side))
    larger = model.family.image_shape(model.base, model.processor, (4 * side, 4 * side))
    if isinstance(model.base, InternVLForConditionalGeneration):  # larger ones are cut in tiles, one is enough here
        larger = (1, larger[1])
    assert torch.Size(shape).numel() == torch.Size(larger).numel()


def test_generation_equals_transformers(model, groups):
    for group, row in zip(groups, generate(model, groups, 6), strict=True):
        for vqa, answer in zip(group.vqa, row, strict=True):
            text = model.encoder.template.image_prefix + model.encoder.template.question.format(question=vqa.question)
            inputs = model.processor(images=[group.image.open()], text=[text], return_tensors="pt")
            out = model.base.generate(**inputs, max_new_tokens=6, do_sample=False)
            wanted = model.processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            assert answer == wanted.strip()


def test_ideal_distribution_behind_images_of_different_sizes(model, groups):
    pictures = [*irrelevant_images("scenes", 2, size=56), picture(112, 70, 7)]
    model.adapt(Lora(r=2, alpha=4))
    questions = model.pack(groups).encoded
    wanted = plain_ideal(model, groups, pictures)
    for budget in (1, model.max_tokens):  # images are read one by one, or together
        model.set_budgets(model.max_sequence_tokens, budget)
        prefixes = ImagePrefixes(model, pictures)
        prefixes.max_tokens = 60
        found = torch.cat([p for _, p in prefixes.distributions(questions)])
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    images = (states for _, states in prefixes.hidden(questions[:1]))
    assert mean_distribution(model.head(s) for s in next(images)).sum(-1).allclose(torch.ones(1))


def test_frozen_features_are_computed_once(model, groups, monkeypatch):
    if not model.family.packs:
        pytest.skip("nothing is kept of images on the plain route")
    first = model.vision.features(model.base, [g.image for g in groups])
    counted = []
    compute = model.family.tower_features
    monkeypatch.setattr(model.family, "tower_features", lambda *a: counted.append(a) or compute(*a))
    model.vision.features(model.base, [groups[0].image] * 3)
    assert not counted
    model.requires_grad_(False)
    model.vision.forget()
    again = model.vision.features(model.base, [groups[1].image, groups[0].image, groups[1].image])
    assert sum(len(images) for _, _, images in counted) == 2
    torch.testing.assert_close(again[0], first[1])
    torch.testing.assert_close(again[1], first[0])
    model.vision.keep = "off"  # obeyed from now on, not only before the first picture
    counted.clear()
    for _ in range(2):
        model.vision.features(model.base, [groups[0].image])
    assert len(counted) == 2


def test_lora_is_in_the_language_model_only(model):
    linear = {id(m.weight) for m in model.language_model.layers.modules() if isinstance(m, torch.nn.Linear)}
    layers = len(model.language_model.layers)
    model.adapt(Lora(r=2))
    inside = {id(p) for p in model.language_model.parameters()}
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    assert all("lora_" in n and id(p) in inside for n, p in trainable)
    assert len(trainable) == 2 * len(linear) == 2 * 7 * layers


def test_adapter_frozen_pass_and_saved_weights(model, groups, tmp_path):
    def logits(mllm):
        with torch.no_grad():
            return mllm.answer_tokens(mllm.pack(groups)).logits

    before, lora = logits(model), Lora(r=2, alpha=4)
    model.save(tmp_path / "base")
    model.adapt(lora)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.2)
    after = logits(model)
    assert (after - before).abs().max() > 0.1
    with model.frozen():
        torch.testing.assert_close(logits(model), before)
    torch.testing.assert_close(logits(model), after)
    model.save_adapter(tmp_path / "adapter")
    again = MLLM.load(tmp_path / "base")
    torch.testing.assert_close(logits(again), before)
    again.adapt(lora, tmp_path / "adapter")
    torch.testing.assert_close(logits(again), after)
    write_merged(tmp_path / "adapter", tmp_path / "merged", base=str(tmp_path / "base"))
    merged = MLLM.load(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), after, rtol=1e-4, atol=1e-4)
    merged.save(tmp_path / "once more")
    torch.testing.assert_close(logits(MLLM.load(tmp_path / "once more")), after, rtol=1e-4, atol=1e-4)


def test_projector_learns_where_all_is_trained(model, groups):
    model.train_fully()
    model.answer_tokens(model.pack(groups)).log_probs.mean().backward()
    projector = model.family.projector(model.base)
    for name, p in projector.named_parameters() if projector else ():
        assert p.grad is not None and p.grad.abs().max() > 0, name
    assert all(p.grad is None for p in model.family.tower(model.base).parameters())


def test_route_is_chosen_by_trying(groups, caplog):
    caplog.set_level(logging.INFO, "viker_lightning")
    assert random_model("llava").packs
    assert not random_model("windowed").packs
    assert not random_model("gemma3").packs
    packed, plain, unknown = (m for m in caplog.messages if "packed sequences" in m or "plain route" in m)
    assert "packed sequences" in packed and "plain route" in plain
    assert "Gemma3" in unknown and "no known family" in unknown


@pytest.mark.parametrize("name", quick([n for n in FAMILIES if n != "gemma3"], BY_DEFAULT))
def test_known_families_are_packed(name):
    assert random_model(name).packs


def test_image_matters_on_every_route(model, groups):
    with torch.no_grad():
        mine, other_image = (
            model.answer_tokens(model.pack([replace(groups[0], image=g.image)])).logits for g in groups
        )
    assert (mine - other_image).abs().max() > 1e-3


def test_scaled_logits_are_an_error(monkeypatch):
    model = random_model("gemma3")
    forward = type(model.base).forward

    def scaled(self, *args, **kwargs):
        out = forward(self, *args, **kwargs)
        out.logits = out.logits * 2
        return out

    monkeypatch.setattr(type(model.base), "forward", scaled)
    with pytest.raises(UserError, match="scaled or capped"):
        assert model.packs


def test_model_without_parts_that_can_be_told_apart_is_an_error():
    config = Blip2Config()
    with torch.device("meta"):
        blip = Blip2ForConditionalGeneration(config)
    with pytest.raises(UserError, match="no causal language model"):
        Unknown().language_model(blip)


def test_missing_chat_template_is_an_error():
    model = random_model("gemma3")
    model.processor.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        MLLM(model.model, model.processor)


def test_what_is_kept_is_that_of_the_familys_present_source(tmp_path, monkeypatch):
    """Features and references on disk are found by name: another way to see an image is another name."""
    model = random_model("llava")
    of_package = model.vision.fingerprint(model.base)
    file, names = tmp_path / "outside_family.py", set()
    monkeypatch.syspath_prepend(str(tmp_path))
    file.write_text("from viker_lightning.models.families import Llava\n\n\nclass Outside(Llava):\n    pass\n")
    outside = import_family("outside_family.Outside")
    for _ in range(2):
        names.add(model.vision.fingerprint(model.base))
        assert model.fingerprint.endswith(model.family.code)
        model.vision.family = model.family = outside
        del model.fingerprint
        names.add(model.vision.fingerprint(model.base))
        file.write_text(file.read_text() + "    image_labels = False\n")
    assert len(names) == 3 and of_package in names
