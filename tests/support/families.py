"""Tiny random models of the supported families with their real processor classes."""

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MistralConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
    TimmWrapperConfig,
)

from support.other_families import gemma3
from support.tiled_families import idefics2, idefics3, internvl, llava_next
from support.tiny_text import tied, tokenizer
from viker_lightning.data.embedded.smol import CHAT
from viker_lightning.models import MLLM


def llava(text=None) -> MLLM:
    fast = tokenizer(["<pad>", "</s>", "<image>"], "</s>")
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    text = text or LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    text.vocab_size = len(fast)
    ids = fast.get_vocab()
    text.pad_token_id, text.eos_token_id, text.bos_token_id = ids["<pad>"], ids["</s>"], None
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=ids["<image>"], image_seq_length=16)
    side = {"height": 56, "width": 56}
    images = CLIPImageProcessor(size=side, crop_size=side)
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=fast,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return MLLM(LlavaForConditionalGeneration(config), processor)


def fast_vlm() -> MLLM:
    """Its tower is a convolutional network of timm's."""
    fast = tokenizer(["<pad>", "<|im_start|>", "<|im_end|>", "<image>"], "<|im_end|>")
    ids = fast.get_vocab()
    config = FastVlmConfig(
        vision_config=TimmWrapperConfig(architecture="test_efficientnet", do_pooling=False, hidden_size=256),
        text_config=LlamaConfig(**tied({}, ids, "<|im_end|>")),
        image_token_index=ids["<image>"],
        image_seq_length=4,
    )
    side = {"height": 64, "width": 64}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size=side, crop_size=side),
        tokenizer=fast,
        patch_size=32,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=CHAT,
    )
    return MLLM(FastVlmForConditionalGeneration(config), processor)


def windowed() -> MLLM:
    """A LLaVA whose language model looks back 24 tokens: questions cannot share an image that lies further back."""
    return llava(
        MistralConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            sliding_window=24,
        )
    )


def qwen(config_class, model_class) -> MLLM:
    special = [
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
        "<|video_pad|>",
    ]  # fmt: skip
    fast = tokenizer(special, "<|im_end|>")
    ids = fast.get_vocab()
    shared = {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "depth": 2, "num_heads": 2}
    vision = (
        {**shared, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
        if model_class is Qwen2VLForConditionalGeneration
        else {**shared, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "fullatt_block_indexes": [1]}
    )
    text = {
        "vocab_size": len(fast),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    config = config_class(
        vision_config=vision,
        text_config=text,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    size = {"shortest_edge": 56 * 56, "longest_edge": 140 * 140}
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size), tokenizer=fast, video_processor=Qwen2VLVideoProcessor()
    )
    return MLLM(model_class(config), processor)


def qwen3() -> MLLM:
    special = [
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
        "<|video_pad|>",
    ]  # fmt: skip
    fast = tokenizer(special, "<|im_end|>")
    ids = fast.get_vocab()
    vision = {
        "depth": 3, "num_heads": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0, 1],
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        vision_config=vision,
        text_config=tied({"head_dim": 16, "rope_parameters": rope}, ids, "<|im_end|>"),
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    chat = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'image' %}"
        "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            size={"shortest_edge": 56 * 56, "longest_edge": 140 * 140}, patch_size=14
        ),
        tokenizer=fast,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=chat,
    )
    return MLLM(Qwen3VLForConditionalGeneration(config), processor)


FAMILIES = {
    "llava": llava,
    "llava_next": llava_next,
    "fast_vlm": fast_vlm,
    "qwen2_vl": lambda: qwen(Qwen2VLConfig, Qwen2VLForConditionalGeneration),
    "qwen2_5_vl": lambda: qwen(Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration),
    "qwen3_vl": qwen3,
    "idefics2": idefics2,
    "idefics2_split": lambda: idefics2(True),
    "idefics3": lambda: idefics3(
        Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, Idefics3ImageProcessor
    ),
    "smolvlm": lambda: idefics3(
        SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMProcessor, SmolVLMImageProcessor, SmolVLMVideoProcessor()
    ),
    "internvl": internvl,
    "gemma3": gemma3,
}


def random_model(name: str) -> MLLM:
    """A model whose weights are large enough to make differences visible."""
    torch.manual_seed(0)
    mllm = FAMILIES[name]() if name in FAMILIES else windowed()
    with torch.no_grad():
        for p in mllm.parameters():
            if p.ndim >= 2:
                p.normal_(std=0.15)
    return mllm.eval()
