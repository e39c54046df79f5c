"""Random models in the shapes people use, small enough for a CPU, with their real processor classes."""

from __future__ import annotations

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from viker_lightning.data.embedded.llava import IMAGE, train_tokenizer
from viker_lightning.data.records import VQA
from viker_lightning.models import MLLM, Lora

WORDS = "the person in this picture lives works was born likes studied near old town river school music garden".split()


def text(i: int, words: int) -> str:
    """A text of so many words, another one for every i."""
    return " ".join(WORDS[(i * 7 + j * (i + 3)) % len(WORDS)] for j in range(words))


def questions(n: int, prompt: int = 20, answer: int = 19, start: int = 0) -> tuple[VQA, ...]:
    """Questions of about 24 tokens (template included) with answers of 20 (end of sequence included)."""
    return tuple(VQA(text(start + i, prompt), text(start + i + 50, answer)) for i in range(n))


def llava(image_tokens: int = 576) -> MLLM:
    """LLaVA: language model 512 x 8, vocabulary 32,064, CLIP tower 256 x 6 with patch 14."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([" ".join(WORDS)])
    side = 14 * round(image_tokens**0.5)
    vision = CLIPVisionConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=side,
        patch_size=14,
    )
    language = LlamaConfig(
        vocab_size=32064,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=language,
        image_token_index=tokenizer.get_vocab()[IMAGE],
        image_seq_length=image_tokens,
    )
    size = {"height": side, "width": side}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size=size, crop_size=size),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return _adapted(MLLM(LlavaForConditionalGeneration(config), processor))


def qwen2_vl(image_tokens: int = 144) -> MLLM:
    """Qwen2-VL: M-RoPE, grouped queries, tied vocabulary of 151,936; language model 512 x 4, vision 256 x 4."""
    torch.manual_seed(0)
    words = train_tokenizer([" ".join(WORDS)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words.backend_tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    special = ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    ids = tokenizer.get_vocab()
    vision = {
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "depth": 4,
        "num_heads": 4,
        "embed_dim": 256,
        "hidden_size": 512,
        "mlp_ratio": 4,
    }
    language = {
        "vocab_size": 151936,
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "tie_word_embeddings": True,
    }
    config = Qwen2VLConfig(
        vision_config=vision,
        text_config=language,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    pixels = image_tokens * 28 * 28
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size={"shortest_edge": pixels, "longest_edge": pixels}),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
    )
    return _adapted(MLLM(Qwen2VLForConditionalGeneration(config), processor))


def _adapted(mllm: MLLM) -> MLLM:
    mllm.adapt(Lora())
    with torch.no_grad():  # as after some steps, so that the frozen model and the student differ
        for name, p in mllm.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.01)
    return mllm


MODELS = {"llava": llava, "qwen2_vl": qwen2_vl}
