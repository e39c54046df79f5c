"""Tiny random models of families that cut an image in tiles."""

from transformers import (
    CLIPVisionConfig,
    GotOcr2ImageProcessor,
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2ImageProcessor,
    Idefics2Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    MistralConfig,
    Qwen2Config,
)

from support.tiny_text import tied, tokenizer
from viker_lightning.models import MLLM


def llava_next() -> MLLM:
    fast = tokenizer(["<pad>", "</s>", "<image>"], "</s>")
    ids = fast.get_vocab()
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    pinpoints = [[28, 56], [56, 28], [56, 56]]
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=LlamaConfig(**tied({}, ids, "</s>")),
        image_token_index=ids["<image>"],
        image_grid_pinpoints=pinpoints,
    )
    side = {"height": 28, "width": 28}
    chat = (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {% for c in m.content %}{% if c.type == 'image' %}"
        "<image>\n{% else %}{{ c.text }}{% endif %}{% endfor %} [/INST]{% else %} {{ m.content[0].text }}</s>"
        "{% endif %}{% endfor %}"
    )
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(size=side, crop_size=side, image_grid_pinpoints=pinpoints),
        tokenizer=fast,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat,
    )
    return MLLM(LlavaNextForConditionalGeneration(config), processor)


IDEFICS_CHAT = (
    "{% for m in messages %}{{ m.role | capitalize }}{% if m.content[0].type == 'image' %}:{% else %}: {% endif %}"
    "{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% else %}<image>{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def idefics2(splitting: bool = False) -> MLLM:
    fast = tokenizer(["<unk>", "</s>", "<image>", "<fake_token_around_image>", "<end_of_utterance>"], "</s>")
    ids = fast.get_vocab()
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56,
        "patch_size": 14,
    }  # fmt: skip
    config = Idefics2Config(
        vision_config=vision,
        perceiver_config={
            "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 16,
            "num_key_value_heads": 1, "hidden_size": 32,
        },
        text_config=MistralConfig(**tied({}, ids, "</s>")),
        image_token_id=ids["<image>"],
    )  # fmt: skip
    images = Idefics2ImageProcessor(size={"shortest_edge": 42, "longest_edge": 56}, do_image_splitting=splitting)
    processor = Idefics2Processor(images, fast, image_seq_len=4, chat_template=IDEFICS_CHAT)
    return MLLM(Idefics2ForConditionalGeneration(config), processor)


def idefics3(config_class, model_class, processor_class, images_class, *video) -> MLLM:
    tiles = [f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)]
    marks = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    fast = tokenizer(["<pad>", "</s>", *marks, *tiles], "</s>")
    ids = fast.get_vocab()
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56,
        "patch_size": 14,
    }  # fmt: skip
    config = config_class(
        vision_config=vision,
        text_config=LlamaConfig(**tied({}, ids, "</s>")),
        image_token_id=ids["<image>"],
        scale_factor=2,
    )
    images = images_class(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    processor = processor_class(images, fast, *video, image_seq_len=4, chat_template="<|im_start|>" + IDEFICS_CHAT)
    return MLLM(model_class(config), processor)


def internvl() -> MLLM:
    names = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    fast = tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *names.values()], "<|im_end|>", **names)
    ids = fast.get_vocab()
    config = InternVLConfig(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": [56, 56], "patch_size": [14, 14],
        },
        text_config=Qwen2Config(**tied({}, ids, "<|im_end|>")),
        image_token_id=ids["<IMG_CONTEXT>"],
        image_seq_length=4,
    )  # fmt: skip
    side = {"height": 56, "width": 56}
    chat = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'image' %}"
        "<IMG_CONTEXT>\n{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=side, max_patches=4),
        fast,
        InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=chat,
    )
    return MLLM(InternVLForConditionalGeneration(config), processor)
