"""The language model of an MLLM by itself, for programs that know of no images."""

import copy
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from viker_lightning.errors import UserError
from viker_lightning.storage.files import replacing_folder

from .mllm import MLLM


def write_language_model(mllm: MLLM, folder: str | Path) -> None:
    """Writes what reads tokens, output embedding included, as a causal language model with its tokenizer.

    Plain ``AutoModelForCausalLM.from_pretrained`` loads it, and its logits of a text without image are those of the
    MLLM. Tower and projector are left out. Safetensors only; whole or not at all.

    Args:
        mllm: without an adapter, which must be merged first.
        folder: where to; what is there is replaced.

    Raises:
        UserError: if transformers has no such language model by itself.
    """
    inner, head = mllm.language_model, mllm.head
    config = copy.deepcopy(mllm.base.config.get_text_config())
    config.architectures = None  # transformers notes the class that is written
    config.tie_word_embeddings = head.weight is inner.get_input_embeddings().weight
    with torch.device("meta"):  # the weights are those of the MLLM
        try:
            alone = AutoModelForCausalLM.from_config(config, dtype=mllm.base.dtype)
        except ValueError as error:
            raise UserError(
                f"--language_model: transformers has no language model {config.model_type!r} by itself, as the Qwen-VL "
                "have none; evaluate merged/, the whole model (docs/elsewhere.md)"
            ) from error
    state = {f"{alone.base_model_prefix}.{name}": weight for name, weight in inner.state_dict().items()}
    state |= {f"lm_head.{name}": weight for name, weight in head.state_dict().items()}
    alone.load_state_dict(state, assign=True)
    alone.tie_weights()
    alone.generation_config = mllm.base.generation_config
    with replacing_folder(Path(folder)) as written:
        alone.save_pretrained(str(written))
        mllm.processor.tokenizer.save_pretrained(str(written))
