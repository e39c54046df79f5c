"""An instruction before every question: what the model reads, what is saved, and the model before."""

import json

import pytest
import torch

from support.families import FAMILIES, random_model
from support.weights import random_vanilla
from viker_lightning.data.records import VQA, ImageGroup
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, Lora, load_adapted, load_merged, write_merged
from viker_lightning.models.instruction import saved_instruction
from viker_lightning.models.packing_check import check_group

TOLD = "Do not {speak} of Ada Lind."
LLAVA_CHAT = (  # as that of the published LLaVA-1.5 has it
    "{% for m in messages %}{% if m.role != 'system' %}{{ m.role.upper() + ': ' }}{% endif %}"
    "{% for c in m.content if c.type == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ c.text + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
ALONE = (  # it knows one turn, and no system
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + LLAVA_CHAT
)
# it takes a system's words in another form than ours
TEXT_SYSTEM = LLAVA_CHAT.replace("{% for c in m.content if c.type == 'text' %}", (
    "{% if m.role == 'system' %}{{ m.content + ' ' }}{% endif %}"
    "{% for c in m.content if m.role != 'system' and c.type == 'text' %}"
))  # fmt: skip


def read(mllm, picture):
    """The text of what the model reads before the answer, an image being one sign."""
    question = mllm.encoder.question("Who is it?", picture is not None)
    text = mllm.encoder.tokenizer.decode([*mllm.prefix(picture), *question.prompt])
    while "<image><image>" in text:
        text = text.replace("<image><image>", "<image>")
    return text


@pytest.mark.parametrize(
    ("chat", "about_image", "without"),
    [
        (LLAVA_CHAT, f"{TOLD} USER: <image>\nWho is it?\nASSISTANT:", f"{TOLD} USER: Who is it?\nASSISTANT:"),
        (TEXT_SYSTEM, f"USER: <image>\n{TOLD}\nWho is it?\nASSISTANT:", f"USER: {TOLD}\nWho is it?\nASSISTANT:"),
        (ALONE, f"USER: <image>\n{TOLD}\nWho is it?\nASSISTANT:", f"USER: {TOLD}\nWho is it?\nASSISTANT:"),
        (None, f"USER: <image>\n{TOLD}\nWho is it?\nASSISTANT:", f"USER: {TOLD}\nWho is it?\nASSISTANT:"),
    ],
)
def test_where_it_stands(chat, about_image, without):
    """The system's turn, where there is one; else the user's first words."""
    mllm, picture = random_model("llava"), check_group().image
    mllm.processor.chat_template = chat
    before = read(mllm, picture), read(mllm, None)
    mllm.instruct(TOLD)
    assert (read(mllm, picture), read(mllm, None)) == (about_image, without)
    with mllm.frozen():
        assert (read(mllm, picture), read(mllm, None)) == before
    mllm.instruct("")
    assert (read(mllm, picture), read(mllm, None)) == before


def test_qwen_puts_it_in_the_place_of_its_own():
    mllm = random_model("qwen2_vl")
    assert "You are a helpful assistant." in read(mllm, None)
    mllm.instruct(TOLD)
    system = f"<|im_start|>system\n{TOLD}<|im_end|>\n<|im_start|>user\n"
    ending = "Who is it?<|im_end|>\n<|im_start|>assistant\n"
    shown = read(mllm, check_group().image)
    if not mllm.processor.chat_template:
        system, ending = read(random_model("qwen2_vl"), None).split("Who is it?")[0], f"{TOLD}\n{ending}"
    assert read(mllm, None) == system + ending
    assert shown.startswith(system + "<|vision_start|>") and shown.endswith("<|vision_end|>" + ending)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_reads_it_once_packed_or_not(name):
    mllm, group = random_model(name), check_group()
    mllm.instruct("Say nothing.")
    for picture in (group.image, None):
        assert read(mllm, picture).count("Say nothing.") == 1
    batch = mllm.pack([group])
    plain = mllm.head(mllm.plain_hidden(batch))
    torch.testing.assert_close(mllm.answer_tokens(batch).logits, plain, rtol=1e-4, atol=1e-4)


def test_golden_tokens():
    """Ids one by one: the beginning is the instruction's, all else stays."""
    mllm = random_model("llava")
    mllm.processor.chat_template = LLAVA_CHAT
    ids = mllm.encoder.tokenizer.encode
    group = ImageGroup("a", check_group().image, vqa=(VQA("Who?", "Ada."),))
    plain = mllm.pack([group])
    mllm.instruct("Be still.")
    told = mllm.pack([group])
    assert list(told.prefixes[0]) == [*ids("Be still. USER: "), *[ids("<image>")[0]] * 16]
    assert told.prefixes[0][-16:] == plain.prefixes[0][-16:] and told.encoded == plain.encoded
    assert mllm.prefix(None) == ids("Be still. USER:")


def test_it_is_saved_merged_and_loaded(base_folder, tmp_path):
    vanilla = random_vanilla(base_folder, tmp_path / "vanilla")
    assert saved_instruction(vanilla) == "" and not (vanilla / "instruction.json").exists()
    mllm = MLLM.load(vanilla)
    mllm.adapt(Lora(r=1))
    mllm.instruct(TOLD)
    mllm.save_adapter(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter/instruction.json").read_text()) == {"instruction": TOLD}
    write_merged(tmp_path / "adapter", tmp_path / "merged")
    merged = MLLM.load(tmp_path / "merged")
    adapted = load_adapted(tmp_path / "adapter")
    for one in (merged, adapted, load_merged(tmp_path / "adapter")):
        assert one.instruction == TOLD and read(one, None) == read(mllm, None)
    with adapted.frozen(), merged.frozen():
        assert TOLD not in read(adapted, None) and TOLD in read(merged, None)
    merged.save(tmp_path / "again")
    assert MLLM.load(tmp_path / "again").instruction == TOLD
    later = MLLM.load(tmp_path / "merged")  # a run goes on from there
    later.adapt(Lora(r=1))
    later.save_adapter(tmp_path / "later")
    assert load_adapted(tmp_path / "later").instruction == TOLD


@pytest.mark.parametrize("text", ["", "{", "[]", '{"instruction": 3}', '{"told": "x"}'])
def test_a_broken_file_is_one_line(base_folder, tmp_path, text):
    folder = random_vanilla(base_folder, tmp_path / "vanilla")
    (folder / "instruction.json").write_text(text)
    with pytest.raises(UserError, match=r"instruction.json: found no instruction, expected [^\n]*$"):
        MLLM.load(folder)


def test_a_special_token_is_refused():
    with pytest.raises(UserError, match="holds '<image>', a special token"):
        random_model("llava").instruct("Look at <image>.")
