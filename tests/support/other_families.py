"""Tiny random models of architectures of no known family."""

from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma3TextConfig,
)

from support.tiny_text import tied, tokenizer
from viker_lightning.models import MLLM

GEMMA_CHAT = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% for c in m.content %}{% if c.type == 'image' %}<start_of_image>{% else %}{{ c.text | trim }}{% endif %}"
    "{% endfor %}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def gemma3(**text) -> MLLM:
    """Its image tokens see each other, whatever the order, and its layers look back over different distances."""
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    fast = tokenizer(["<pad>", "<eos>", "<start_of_turn>", "<end_of_turn>", *names.values()], "<eos>", **names)
    ids = fast.get_vocab()
    config = Gemma3Config(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 56, "patch_size": 14,
        },
        text_config=Gemma3TextConfig(**tied({"head_dim": 16, "sliding_window": 8, **text}, ids, "<eos>")),
        mm_tokens_per_image=4,
        image_token_index=ids["<image_soft_token>"],
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
    )  # fmt: skip
    images = Gemma3ImageProcessor(size={"height": 56, "width": 56}, do_pan_and_scan=False)
    processor = Gemma3Processor(images, fast, image_seq_length=4, chat_template=GEMMA_CHAT)
    return MLLM(Gemma3ForConditionalGeneration(config), processor)
