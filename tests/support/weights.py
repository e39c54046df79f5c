"""Weights that nobody trained, large enough that a model says something and a difference is seen."""

import torch

from viker_lightning.models import MLLM, Lora


def randomise(mllm, std=0.08, projector=None):
    """Draws the matrices of the language model and, if given a spread, those of the projector."""
    with torch.no_grad():
        for p in mllm.language_model.parameters():
            if p.ndim == 2:
                p.normal_(std=std)
        for p in mllm.base.model.multi_modal_projector.parameters() if projector else ():
            p.normal_(std=projector)


def randomise_lora(mllm, std=0.05):
    """Draws what is zero in a new adapter, which then changes what the model says."""
    with torch.no_grad():
        for name, p in mllm.named_parameters():
            if "lora_B" in name:
                p.normal_(std=std)


def random_vanilla(base_folder, folder, seed=0, tied=True, **spread):
    """A model folder; its output embedding is one of its own unless ``tied``."""
    torch.manual_seed(seed)
    mllm = MLLM.load(base_folder)
    randomise(mllm, **spread)
    if not tied:
        base = mllm.base
        base.config.tie_word_embeddings = base.config.text_config.tie_word_embeddings = False
        with torch.no_grad():
            base.lm_head.weight = torch.nn.Parameter(torch.randn_like(base.lm_head.weight) * 0.08)
    mllm.save(folder)
    return folder


def random_adapter(vanilla, folder, seed=1, **spread):
    """An adapter of a model folder."""
    torch.manual_seed(seed)
    mllm = MLLM.load(vanilla)
    mllm.adapt(Lora())
    randomise_lora(mllm, **spread)
    mllm.save_adapter(folder)
    return folder
