"""Decoder layers of a language model: which there are, what came out of some, and what lies above one."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from viker_lightning.errors import UserError


def decoder_layers(language_model: nn.Module) -> list[nn.Module]:
    """The decoder layers in their order.

    Raises:
        UserError: if the model has no list of layers.
    """
    found = next((m for m in language_model.modules() if isinstance(m, nn.ModuleList)), None)
    if found is None:
        name = type(language_model).__name__
        raise UserError(f"{name} has no list of decoder layers; use a method and a strategy that need none")
    return list(found)


def layer_number(layers: Sequence[nn.Module], index: int) -> int:
    """The number of a layer, from 0; the index may be negative, from the end, and an error says so if there is none."""
    n = len(layers)
    if not -n <= index < n:
        raise UserError(
            f"layer {index}: there is none; the language model has {n} decoder layers, name one of 0 to {n - 1} "
            f"(or of -{n} to -1, counted from the end)"
        )
    return index % n


@contextmanager
def outputs_of(layers: dict[int, nn.Module]) -> Iterator[dict[int, Tensor]]:
    """Within this context, which is to hold one pass, the outputs ``[B, T, d]`` of layers are noted, with their graph.

    Computing a layer again in the backward pass adds nothing: nothing is noted any more by then.
    """
    noted: dict[int, Tensor] = {}

    def note(index: int, module: nn.Module, arguments: Any, output: Any) -> None:
        noted[index] = output[0] if isinstance(output, tuple) else output

    with ExitStack() as hooks:
        for index, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(partial(note, index)))
        yield noted


def weights_above(language_model: nn.Module, head: nn.Module, deepest: int) -> tuple[list[nn.Parameter], set[int]]:
    """What a loss does not reach that reads hidden states up to a layer and no words.

    Args:
        language_model: embeddings, decoder layers, and what comes behind them.
        head: the output embedding.
        deepest: the last layer that is read, from 0 or from the end.

    Returns:
        The weights of all later layers, of what comes behind the layers, and of the output embedding unless it is tied
        to the input embedding; and the ids of those in later layers, which such a loss can by no means reach.

    Raises:
        UserError: if there is no such layer.
    """
    layers = decoder_layers(language_model)
    last = layer_number(layers, deepest)
    later = [p for layer in layers[last + 1 :] for p in layer.parameters()]
    below = {id(p) for layer in layers for p in layer.parameters()}
    below |= {id(p) for p in language_model.get_input_embeddings().parameters()}  # type: ignore[operator]
    behind = [p for module in (language_model, head) for p in module.parameters() if id(p) not in below]
    return [*later, *behind], {id(p) for p in later}
