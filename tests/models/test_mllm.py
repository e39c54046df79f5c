import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from support.plain_route import plain_logits
from viker_lightning.data.records import VQA, ImageGroup
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, Lora, ask, generate


def test_packed_equals_plain(mllm, groups):
    packed = mllm.answer_tokens(mllm.pack(groups))
    logits, plain = plain_logits(mllm, groups)
    assert torch.equal(packed.labels, plain.labels)
    assert torch.equal(packed.question, plain.question)
    assert torch.equal(packed.private, plain.private)
    torch.testing.assert_close(packed.logits, logits, rtol=1e-4, atol=1e-4)


def test_packed_equals_plain_after_bad_neighbours(mllm, groups):
    """A question's logits do not depend on the other questions asked about the image."""
    alone = mllm.answer_tokens(
        mllm.pack([groups[0].__class__(groups[0].person, groups[0].image, vqa=groups[0].vqa[2:3])])
    )
    together = mllm.answer_tokens(mllm.pack(groups))
    torch.testing.assert_close(alone.logits, together.logits[together.question == 2], rtol=1e-4, atol=1e-4)


def test_image_matters(mllm, groups):
    other = [ImageGroup(g.person, groups[i - 1].image, vqa=g.vqa) for i, g in enumerate(groups)]
    a, b = (mllm.answer_tokens(mllm.pack(g)).logits for g in (groups, other))
    assert (a - b).abs().max() > 0.01


def test_tower_features_are_what_transformers_computes(mllm, groups):
    pixels = mllm.processor.image_processor(images=[groups[0].image.open()], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        wanted = mllm.base.get_image_features(pixel_values=pixels).pooler_output[0]
        found = mllm.vision.features(mllm.base, [groups[0].image])[0]
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("tokens", [1, 12])
def test_generation_equals_transformers(mllm, groups, tokens):
    answers = generate(mllm, groups, tokens)
    assert [len(a) for a in answers] == [4, 3, 1]
    for group, row in zip(groups, answers, strict=True):
        for vqa, answer in zip(group.vqa, row, strict=True):
            text = f"USER: <image>\n{vqa.question}\nASSISTANT:"
            inputs = mllm.processor(images=group.image.open(), text=text, return_tensors="pt")
            out = mllm.base.generate(**inputs, max_new_tokens=tokens, do_sample=False)
            wanted = mllm.processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            assert answer == wanted.strip()


def test_a_question_that_stands_twice_side_by_side_is_answered_as_if_once(mllm, groups):
    """Both answers begin at one place; neither sees the other."""
    vqa = groups[0].vqa
    twice, once = (ImageGroup("x", groups[0].image, vqa=asked) for asked in ((vqa[0], vqa[0], *vqa[1:]), vqa))
    (first, second, *others), wanted = generate(mllm, [twice], 12)[0], generate(mllm, [once], 12)[0]
    assert [first, *others] == wanted and second == first


def test_one_question_about_a_photo_or_its_file(mllm, groups, tmp_path):
    """As an evaluation asks it, and of the model before where the adapter is off."""
    photo, question = groups[0].image, groups[0].vqa[0].question
    ((wanted,),) = generate(mllm, [ImageGroup("x", photo, vqa=(VQA(question, ""),))], 9)
    (tmp_path / "photo.png").write_bytes(photo.data)
    for image in (photo, tmp_path / "photo.png", str(tmp_path / "photo.png")):
        assert ask(mllm, image, question, 9) == wanted
    with mllm.frozen():
        assert ask(mllm, photo, question, 9) != wanted
    assert isinstance(ask(mllm, None, "Where is that?", 3), str)


def test_what_cannot_be_asked_is_said_in_one_line(mllm, groups, tmp_path):
    with pytest.raises(UserError, match=rf"^{tmp_path}/none\.png: No such file or directory, expected an image file"):
        ask(mllm, tmp_path / "none.png", "Who is this?")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=rf"^{tmp_path}/text\.png: not a readable image"):
        ask(mllm, tmp_path / "text.png", "Who is this?")
    with pytest.raises(UserError, match="holds '</s>', a special token"):
        ask(mllm, groups[0].image, "Who is this?</s>")


def test_token_ids_are_the_processors(mllm, groups):
    vqa = groups[0].vqa[0]
    encoded = mllm.encoder.encode(vqa, image=True)
    text = f"USER: <image>\n{vqa.question}\nASSISTANT: {vqa.answer}"
    ids = mllm.processor(images=groups[0].image.open(), text=text)["input_ids"][0]
    assert [*mllm.prefix(groups[0].image), *encoded.prompt, *encoded.answer[:-1]] == list(ids)
    assert encoded.answer[-1] == mllm.encoder.eos


def test_text_only_questions(mllm, groups):
    text = ImageGroup("x", None, vqa=(VQA("Who is that?", "Nobody."),))
    mixed = mllm.answer_tokens(mllm.pack([groups[0], text]))
    alone = mllm.answer_tokens(mllm.pack([text]))
    torch.testing.assert_close(mixed.logits[mixed.question == 4], alone.logits, rtol=1e-4, atol=1e-4)
    assert len(generate(mllm, [groups[0], text], 3)[1]) == 1


def test_lora_is_in_the_language_model_only(mllm):
    trainable = [n for n, p in mllm.named_parameters() if p.requires_grad]
    assert trainable
    assert all("language_model" in n and "lora_" in n for n in trainable)
    assert len(trainable) == 2 * 7 * 3


def test_every_lora_weight_gets_a_gradient(mllm, groups):
    (-mllm.answer_tokens(mllm.pack(groups)).log_probs.mean()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in mllm.parameters() if p.requires_grad)


def test_frozen_pass_is_the_model_without_adapter(mllm, groups, base_folder):
    student = mllm.answer_tokens(mllm.pack(groups)).logits
    with mllm.frozen():
        frozen = mllm.answer_tokens(mllm.pack(groups)).logits
    assert not frozen.requires_grad
    assert (student - frozen).abs().max() > 0.01
    with torch.no_grad():
        for name, p in mllm.named_parameters():
            if "lora_B" in name:
                p.zero_()
    torch.testing.assert_close(mllm.answer_tokens(mllm.pack(groups)).logits, frozen)


def test_the_frozen_pass_drops_nothing_out(mllm, groups):
    """While a base model with dropout of its own is trained."""
    for layer in mllm.language_model.layers:
        layer.self_attn.attention_dropout = 0.5
    batch = mllm.pack(groups)
    with mllm.eval().frozen():
        wanted = mllm.answer_tokens(batch).logits
    mllm.train()
    student, again = (mllm.answer_tokens(batch).logits for _ in range(2))
    assert (student - again).abs().max() > 0.01
    with mllm.frozen():
        found = mllm.answer_tokens(batch).logits
    torch.testing.assert_close(found, wanted)
    assert mllm.training and mllm.language_model.training


def test_frozen_refuses_full_fine_tuning(base_folder):
    model = MLLM.load(base_folder)
    model.train_fully()
    assert not any(p.requires_grad for p in model.base.model.vision_tower.parameters())
    with model.frozen():
        pass  # nothing has moved yet
    model.moved = True
    with pytest.raises(UserError, match="training without LoRA overwrote it"), model.frozen():
        pass


def test_tower_stays_in_evaluation_mode(mllm):
    mllm.train()
    assert not mllm.base.model.vision_tower.training
    assert mllm.base.model.language_model.training


def test_adapter_survives_saving(mllm, groups, base_folder, tmp_path):
    wanted = mllm.answer_tokens(mllm.pack(groups)).logits
    mllm.save_adapter(tmp_path / "adapter")
    assert not list(tmp_path.rglob("*.bin"))
    again = reload(mllm, base_folder)
    again.adapt(Lora(), tmp_path / "adapter")
    torch.testing.assert_close(again.answer_tokens(again.pack(groups)).logits, wanted)
    by_peft = PeftModel.from_pretrained(reload(mllm, base_folder).model, str(tmp_path / "adapter"))
    peft_logits, _ = plain_logits(MLLM(by_peft.get_base_model(), mllm.processor), groups)
    torch.testing.assert_close(peft_logits, wanted, rtol=1e-4, atol=1e-4)


def reload(mllm, base_folder):
    """A fresh model with the base weights of ``mllm``."""
    model = MLLM.load(base_folder)
    weights = {
        k.replace("base_model.model.", "").replace(".base_layer", ""): v for k, v in mllm.model.state_dict().items()
    }
    model.model.load_state_dict({k: v for k, v in weights.items() if "lora_" not in k})
    return model


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_wrong_adapter_is_an_error(mllm, base_folder, tmp_path, change):
    mllm.save_adapter(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    weights = load_file(file)
    key = sorted(weights)[0]
    weights = (
        {k: v for k, v in weights.items() if k != key}
        if change == "missing"
        else weights | {"odd": weights[key].clone()}
    )
    save_file(weights, file)
    with pytest.raises(UserError, match=f"1 {change} adapter keys"):
        MLLM.load(base_folder).adapt(Lora(), tmp_path)


def test_unknown_architecture(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(UserError, match="'LlamaForCausalLM' is not supported"):
        MLLM.load(tmp_path)


def test_a_tokenizer_of_another_model_is_an_error(base_folder, tmp_path):
    shutil.copytree(base_folder, tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"image_token_index": 999999}))
    with pytest.raises(UserError, match=r"image_token_id in config.json is 999999, which the tokeni"):
        MLLM.load(tmp_path / "model")


def test_weights_that_are_not_whole_are_an_error(base_folder, tmp_path):
    shutil.copytree(base_folder, tmp_path / "model")
    file = tmp_path / "model/model.safetensors"
    weights = load_file(file)
    name = next(name for name in sorted(weights) if "q_proj" in name)
    save_file(weights | {name: torch.zeros(3, 3)}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights have another shape.*q_proj.weight': found \[3, 3\], expected \["):
        MLLM.load(tmp_path / "model")
    weights.pop(name)
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"model: 1 weights are missing, e.g. '.*q_proj.weight'"):
        MLLM.load(tmp_path / "model")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"model: no model could be loaded \(.*incomplete"):
        MLLM.load(tmp_path / "model")
