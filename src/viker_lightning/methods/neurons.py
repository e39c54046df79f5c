"""Neurons of the language model's MLPs: what they say where answers are predicted, for methods that edit weights."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from viker_lightning.errors import UserError
from viker_lightning.models import decoder_layers

from .base import Preparation

READ = (-1,)
"""Layers that a method declares to have activations read: by what it shows of the last, answers are found in all."""


def down_projections(run: Preparation, method: str) -> list[nn.Linear]:
    """The matrices behind the neurons of every decoder layer, whose input j is what neuron j says.

    It is an error if they cannot be edited: below an adapter, where they are not saved, or in parts.
    """
    if run.mllm.adapted:
        raise UserError(
            f"model.method: {method} edits the model's own weights, found an adapter; set model.lora to null"
        )
    if run.mllm.lockstep is not None:
        raise UserError(f"trainer.strategy: {method} edits whole weights, found sharded ones; use ddp or one process")
    layers = decoder_layers(run.mllm.language_model)
    found = [getattr(getattr(layer, "mlp", None), "down_proj", None) for layer in layers]
    if not all(isinstance(one, nn.Linear) for one in found):
        name = type(run.mllm.language_model).__name__
        raise UserError(f"model.method: {method} needs mlp.down_proj in every layer, which {name} lacks; use another")
    return found  # type: ignore[return-value]


def activations(run: Preparation, matrices: list[nn.Linear], stream: str, title: str) -> Iterator[list[Tensor]]:
    """What neurons say at the positions that predict answer tokens, part by part.

    Args:
        run: makes the passes.
        matrices: of every layer, see :func:`down_projections`.
        stream: ``forget`` or ``retain``.
        title: what the bar says.

    Yields:
        By layer ``[T, n]`` of T answer tokens and n neurons, fp32. A position that predicts the first tokens of several
        answers counts with each of them.
    """
    inputs: list[list[Tensor]] = [[] for _ in matrices]
    outputs: list[Tensor] = []

    def note_output(module: nn.Module, arguments: Any, output: Any) -> None:
        if torch.is_grad_enabled():  # what is asked without gradient is no part of the stream
            outputs.append(output[0] if isinstance(output, tuple) else output)

    def note_input(layer: int, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            inputs[layer].append(arguments[0].detach())

    with ExitStack() as hooks:
        for layer, one in enumerate(matrices):
            hooks.enter_context(one.register_forward_pre_hook(partial(note_input, layer)))
        hooks.enter_context(decoder_layers(run.mllm.language_model)[-1].register_forward_hook(note_output))
        for tokens in run.passes(stream, title, once=True):
            # answers were cut out of the outputs, so the gradient is how often each position was taken
            taken = torch.autograd.grad(tokens.layers[READ[0]].float().sum(), outputs)
            times = [gradient[..., 0].flatten().round().long() for gradient in taken]
            yield [
                torch.cat([z.flatten(0, 1).repeat_interleave(n, 0) for z, n in zip(noted, times, strict=True)]).float()
                for noted in inputs
            ]
            outputs.clear()
            for noted in inputs:
                noted.clear()


def added(
    run: Preparation, matrices: list[nn.Linear], stream: str, title: str, of: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Sums over all :func:`activations` of a stream, of all parts and processes.

    Returns:
        By layer what ``of`` makes of all of them: sums over T of ``[T, n]`` activations, fp64, and zeros of none.
    """
    found = [of(one.weight.new_zeros(0, one.in_features, dtype=torch.float64)) for one in matrices]
    for parts in activations(run, matrices, stream, title):
        found = [sums + of(z.double()) for sums, z in zip(found, parts, strict=True)]
    return list(run.total({str(layer): sums for layer, sums in enumerate(found)}).values())
