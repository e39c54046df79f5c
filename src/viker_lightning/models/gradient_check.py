"""Whether the first backward pass reached everything that is trained."""

from collections.abc import Collection, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from viker_lightning.errors import UserError

from .dtensor import local_part
from .mllm import MLLM


def check_first_gradients(mllm: MLLM, finite: bool = True, images: bool = True, deepest: int | None = None) -> bool:
    """Makes sure that the first backward pass reached everything that is trained; all processes call it together.

    Of an adapter only the second matrix is looked at: the first one gets no gradient while the second is zero. Modules
    trained beside adapters are looked at whole.

    Args:
        mllm: a model after the backward pass.
        finite: whether a gradient that is not finite is an error too; a scaled fp16 step may have some.
        images: whether this process's step showed an image; if none did, only the language model is looked at.
        deepest: the last decoder layer whose hidden states the loss reads, from 0 or from the end, if it reads no
            words: what lies above (later layers, final norm, output embedding) is not judged. Else ``None``.

    Returns:
        Whether everything could be judged; a loss may be clipped everywhere, and a step may show no image.

    Raises:
        UserError: if a weight got no gradient, or one that is not finite, or a later layer than ``deepest`` got one.
    """
    trained = {name: p for name, p in mllm.named_parameters() if p.requires_grad and p.numel()}
    looked = {name: p for name, p in trained.items() if "lora_A" not in name}  # of an adapter the second matrix alone
    *rows, (shown, _) = gradient_states([p.grad for p in looked.values()], mllm.device, images)
    if odd := [name for name, (_, infinite) in zip(looked, rows, strict=True) if finite and infinite]:
        raise UserError(f"first step: {_count(odd)} have a gradient that is not finite, e.g. {_layer(odd[0])}")
    reached = {name for name, (some, _) in zip(looked, rows, strict=True) if some}
    below = looked if deepest is None else _below(mllm, deepest, looked, reached)
    language = {id(p) for module in (mllm.language_model, mllm.head) for p in module.parameters()}
    judged = [name for name, p in below.items() if shown or id(p) in language]
    missed = [name for name in judged if name not in reached]
    if missed and len(missed) < len(judged):
        remedy = "name other layers in model.lora.targets" if mllm.adapted else "train adapters instead (model.lora)"
        raise UserError(
            f"first step: no gradient reaches {len(missed)} of {_count(judged)}, e.g. {_layer(missed[0])}; "
            f"the model does not use them: {remedy}"
        )
    return len(judged) == len(below) and not missed


def _below(mllm: MLLM, deepest: int, looked: dict[str, Parameter], reached: Collection[str]) -> dict[str, Parameter]:
    """The weights that a loss reaches which reads no later decoder layer than ``deepest``; else it is an error."""
    above, later = mllm.above(deepest)
    if beyond := [name for name, p in looked.items() if name in reached and id(p) in later]:
        raise UserError(
            f"first step: a gradient reaches {_layer(beyond[0])}, but the loss is said to stop at decoder layer "
            f"{deepest}; name the last layer it reads, or none if it reads words"
        )
    unjudged = {id(p) for p in above}
    return {name: p for name, p in looked.items() if id(p) not in unjudged}


def gradient_states(gradients: Sequence[Tensor | None], device: torch.device, images: bool = False) -> list[list[int]]:
    """What all processes together hold of gradients; all of them ask together, for the same weights.

    Args:
        gradients: of weights, or this process's part of them.
        device: for the exchange.
        images: whether this process's step showed an image.

    Returns:
        For each whether it has values other than 0, and whether any that are not finite; and in the end whether any
        process showed an image, and 0.
    """
    states = [_state(gradient, device) for gradient in gradients]
    found = torch.stack([*states, torch.tensor([int(images), 0], device=device)])
    if dist.is_initialized():  # each process may hold a part of the weights
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()


def _state(gradient: Tensor | None, device: torch.device) -> Tensor:
    """Whether what this process holds of a gradient (perhaps nothing) has values other than 0, and any not finite."""
    if gradient is None:
        return torch.zeros(2, dtype=torch.int64, device=device)
    here = local_part(gradient)
    return torch.stack([here.ne(0).any(), ~here.isfinite().all()]).to(device, torch.int64)


def _count(names: Collection[str]) -> str:
    return f"{len(names)} {'adapters' if all('lora_B' in name for name in names) else 'trained weights'}"


def _layer(name: str) -> str:
    """The path of a weight in the model; of an adapter that of its layer."""
    return name.removeprefix("model.").split("base_model.model.")[-1].split(".lora_B")[0]
