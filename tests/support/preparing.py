"""What a method is given before the first step, of a few questions."""

from dataclasses import replace

import torch

from viker_lightning.models import MLLM, decoder_layers
from viker_lightning.training.distributed import Processes
from viker_lightning.training.preparation import Prepare

from .weights import randomise


def whole_model(base_folder):
    """An embedded model with random weights that is trained in full, without an adapter."""
    torch.manual_seed(0)
    mllm = MLLM.load(base_folder)
    randomise(mllm, projector=0.3)
    mllm.train_fully(head=False)
    return mllm


def prepare(mllm, method, resumed=False, **streams):
    """Passes over image groups, by stream."""
    return Prepare(mllm, streams.__getitem__, method.layers, Processes(), resumed)


def ce(mllm, groups):
    """The mean cross-entropy of all answer tokens of image groups, in one pass."""
    return -mllm.answer_tokens(mllm.pack(groups)).log_probs.mean()


def trained(mllm):
    """What is trained, by name."""
    return {name: p for name, p in mllm.named_parameters() if p.requires_grad}


def of_each_question(mllm, groups):
    """What every neuron says at the answer positions of each question, asked alone: by layer ``[T, n]``."""
    noted = {}
    handles = [
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, found, n=n: noted.__setitem__(n, found[0]))
        for n, layer in enumerate(decoder_layers(mllm.language_model))
    ]
    said = [[] for _ in handles]
    for group in groups:
        for vqa in group.vqa:
            batch = mllm.pack([replace(group, vqa=(vqa,))])
            with torch.no_grad():
                mllm.hidden(batch)
            for n, z in noted.items():
                said[n].append(z[0, batch.columns])
    for handle in handles:
        handle.remove()
    return [torch.cat(parts) for parts in said]
