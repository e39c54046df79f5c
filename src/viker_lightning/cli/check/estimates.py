"""What a run will take, from plain numbers: formulae, and how sure each is.

Exact are the bytes of weights that are not quantised, of models that are asked beside the trained one (gold, judge,
classifier of gibberish), of gradients, of AdamW's state, of logits and of references.
Estimated are activations: how many numbers a decoder layer keeps for its backward pass depends on kernels, and on what
PEFT puts into fp32. Left out are the CUDA context, fragments of PyTorch's allocator, workspaces of kernels, pixels and
the vision tower's own activations (the tower is frozen, so they last no longer than its pass).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

GIB = 2**30

FP32 = 4
"""Bytes of a number in fp32: adapters, logits and references are always kept so."""

LIBRARIES = 6 * GIB // 10
"""What Python and its libraries take before a model is there, in the memory of the machine (measured on Linux)."""

BITS = {"nf4": 4 + 8 / 64 + 32 / (64 * 256), "fp4": 4 + 32 / 64, "int8": 8.0}
"""Bits of a quantised weight with its share of constants: one for each 64 weights, which nf4 keeps in 8 bits with one
in 32 for each 256 of them (QLoRA, Dettmers et al. 2023, arXiv 2305.14314, section 3)."""

HIDDEN_BYTES, INNER_BYTES = 40, {2: 10, 4: 16}
"""Bytes that a token leaves in a decoder layer for its backward pass, for each number of the model's width and of the
feed-forward layer's, by the bytes of a number. Counted with saved-tensor hooks on a LLaVA with LoRA on all layers
(torch 2.13, transformers 5, a CPU): ten vectors of the width and four of the feed-forward layer in fp32; in bf16, norms
and LoRA still read eight and one of them in fp32."""


@dataclass(frozen=True)
class ModelSize:
    """What is to be known of a model; all are counts.

    Attributes:
        weights: all weights, whether trained or not, those of an adapter included.
        trained: those that are trained.
        linear: those that quantisation keeps in fewer bits.
        decoder: those of the decoder layers, which FSDP2 shares out.
        hidden: width of the decoder.
        inner: width of its feed-forward layers.
        layers: decoder layers.
        key_value: numbers that a token's keys and values have in one layer.
        vocabulary: words of the output embedding.
    """

    weights: int
    trained: int
    linear: int
    decoder: int
    hidden: int
    inner: int
    layers: int
    key_value: int
    vocabulary: int


@dataclass(frozen=True)
class Workload:
    """How much passes the model at once, and what a step asks.

    Attributes:
        tokens: of all sequences of one pass with gradient, padding included.
        answers: answer tokens among them.
        seen: places of the masks of attention: for each token behind an image, every token of its sequence.
        evaluated: tokens of the largest pass of an evaluation, padding and generated ones included.
        behind_images: tokens read at once behind all irrelevant images, those of the images included.
        answers_behind_image: answer tokens at once behind one irrelevant image.
        questions: of a step, as a mean.
        trained_on: answer tokens of a step, as a mean.
    """

    tokens: int
    answers: int
    seen: int = 0
    evaluated: int = 0
    behind_images: int = 0
    answers_behind_image: int = 0
    questions: float = 0.0
    trained_on: float = 0.0


def weight_bytes(shape: ModelSize, itemsize: int, trained_itemsize: int, quantize: str | None = None) -> int:
    """Bytes of all weights, given those of a frozen and of a trained one; :data:`BITS` estimate quantised ones."""
    few = shape.linear if quantize else 0
    whole = shape.weights - shape.trained - few
    return whole * itemsize + shape.trained * trained_itemsize + math.ceil(few * BITS.get(quantize or "", 0) / 8)


def activation_bytes(shape: ModelSize, tokens: int, seen: int, itemsize: int, checkpointing: bool = False) -> int:
    """Bytes that a pass keeps for its backward pass: those of :data:`HIDDEN_BYTES`, and in every layer a mask.

    With checkpointing only inputs of layers are kept, and one layer at a time is computed again.
    """
    layer = tokens * (HIDDEN_BYTES * shape.hidden + INNER_BYTES[itemsize] * shape.inner) + seen * itemsize
    inputs = tokens * (shape.layers + 1) * shape.hidden * itemsize  # of the layers, and of the norm behind them
    return inputs + layer if checkpointing else shape.layers * layer


def logits_bytes(tokens: int, vocabulary: int, copies: int = 1) -> int:
    """Bytes of logits, fp32: ``copies`` times ``[tokens, vocabulary]``."""
    return copies * tokens * vocabulary * FP32


def key_value_bytes(shape: ModelSize, tokens: int, itemsize: int) -> int:
    """Bytes of keys and values of tokens in all layers."""
    return tokens * shape.layers * shape.key_value * itemsize


def reference_bytes(tokens: int, numbers: int, vectors: int = 1) -> int:
    """Bytes of what a frozen model said: vectors, an entropy and a log-probability a token, fp32.

    Args:
        tokens: answer tokens.
        numbers: of a token: the decoder's width, for each layer whose hidden states are kept, too.
        vectors: references of one token: 1 for the ideal distribution; k + 1 where what is said behind each of k
            strangers is kept beside their mean.
    """
    return tokens * vectors * (numbers + 2) * FP32


@dataclass(frozen=True)
class Setting:
    """What of a run's options decides about memory.

    Attributes:
        itemsize: bytes of a frozen weight and of an activation.
        trained_itemsize: bytes of a trained weight.
        quantize: how the language model is kept.
        checkpointing: of gradients.
        shards: processes that share the decoder layers out.
        others: bytes of other models that are asked and stay, by what they are: those of a method, and those of
            evaluations.
        trains: whether there are gradients and an optimizer.
        copies: numbers a trained weight that a method holds beside these.
        references: bytes of what frozen models say, where that is on the device.
        libraries: bytes of Python and its libraries, where they are in the same memory.
    """

    itemsize: int = FP32
    trained_itemsize: int = FP32
    quantize: str | None = None
    checkpointing: bool = False
    shards: int = 1
    others: Mapping[str, int] = field(default_factory=dict)
    trains: bool = True
    copies: int = 0
    references: int = 0
    libraries: int = 0


STANDING, PASSING = "standing", "passing"


def memory(shape: ModelSize, load: Workload, setting: Setting) -> dict[str, dict[str, int]]:
    """Bytes on the device, line by line.

    - weights: number times bytes; of quantised ones :data:`BITS`.
    - other models: as they are given; they are shared out among no processes, and never quantised.
    - gradients: one number for each trained weight; optimizer: two, as AdamW keeps them, whatever optimizer is set;
      the method: as many as it says, counted as if they were there all the time.
    - a training step: :func:`activation_bytes` of the largest of its parts, and logits of its answer tokens, twice,
      since their gradient is there at the same time.
    - an evaluation: keys and values of its largest pass, and logits of as many answer tokens as a step has.
    - the ideal distribution: keys and values behind all images at once, and logits, probabilities and their sum.

    With FSDP2 the decoder layers' share of weights, gradients and optimizer is divided by the processes.

    Returns:
        ``standing``: what is there all the time; ``passing``: what is there one after the other.
    """
    weights = weight_bytes(shape, setting.itemsize, setting.trained_itemsize, setting.quantize)
    copy = shape.trained * setting.trained_itemsize
    trained = copy * setting.trains
    share = shape.decoder / max(1, shape.weights)
    left = 1 - share + share / setting.shards
    steps = activation_bytes(shape, load.tokens, load.seen, setting.itemsize, setting.checkpointing)
    passing = {
        "a step: activations and logits": (steps + logits_bytes(load.answers, shape.vocabulary, 2)) * setting.trains,
        "an evaluation: keys, values and logits": key_value_bytes(shape, load.evaluated, setting.itemsize)
        + logits_bytes(load.answers, shape.vocabulary),
        "the ideal distribution: keys, values and logits": key_value_bytes(shape, load.behind_images, setting.itemsize)
        + logits_bytes(load.answers_behind_image, shape.vocabulary, 3),
    }
    standing = {
        "weights": round(weights * left),
        **setting.others,
        "gradients": round(trained * left),
        "optimizer's state": round(2 * trained * left),
        "gradients and weights that the method holds": round(setting.copies * copy * left),
        "what frozen models say": setting.references,
        "Python and its libraries": setting.libraries,
    }
    return {STANDING: standing, PASSING: passing}


def most(parts: dict[str, dict[str, int]]) -> int:
    """Bytes that are there at once at most: all that stands, and the largest of what passes."""
    return sum(parts[STANDING].values()) + max(parts[PASSING].values(), default=0)
