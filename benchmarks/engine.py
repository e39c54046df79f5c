"""What sharing an image saves: the engine against the plain loop, as ratios measured in one process.

    python benchmarks/engine.py [--questions 6] [--k 5] [--repeats 5] [--threads 1]

The model is a random LLaVA (language model 256 x 4, vocabulary 8,192, 224 px, patch 14: 256 image tokens) with LoRA on
its language model. The plain loop asks two questions a batch, repeats the image for each, runs the vision tower every
time, computes logits at every position and takes full distributions. Medians; the routes alternate. Writes
``benchmarks/results.json``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from viker_lightning.data.irrelevant import irrelevant_images
from viker_lightning.data.records import VQA, ImageGroup
from viker_lightning.ideal import IdealDistribution, forward_kl
from viker_lightning.ideal.plain import plain_ideal, plain_logits
from viker_lightning.models import MLLM, Lora
from viker_lightning.models.mini import IMAGE, train_tokenizer

WORDS = "the person in this picture lives works was born likes studied near old town river school music garden".split()


def model() -> MLLM:
    """The random LLaVA."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([" ".join(WORDS)])
    vision = CLIPVisionConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=224,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=8192,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.get_vocab()[IMAGE], image_seq_length=256
    )
    side = {"height": 224, "width": 224}
    images = CLIPImageProcessor(size=side, crop_size=side)
    processor = LlavaProcessor(image_processor=images, tokenizer=tokenizer, patch_size=14)
    mllm = MLLM(LlavaForConditionalGeneration(config), processor)
    mllm.adapt(Lora())
    return mllm


def question(i: int, words: int) -> str:
    """A question or answer of so many words, different for every i."""
    return " ".join(WORDS[(i * 7 + j * (i + 3)) % len(WORDS)] for j in range(words))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=6)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    mllm = model()
    image, *irrelevant = irrelevant_images("scenes", args.k + 1, size=224)
    vqa = tuple(VQA(question(i, 20), question(i + 50, 16)) for i in range(args.questions))
    group = ImageGroup("x", image, vqa=vqa)
    pairs = [replace(group, vqa=vqa[i : i + 2]) for i in range(0, len(vqa), 2)]
    fixed = mllm.pack([group]).labels.numel()

    def plain_student() -> torch.Tensor:
        loss = torch.zeros(())
        for pair in pairs:
            logits, tokens = plain_logits(mllm, [pair])
            part = -torch.nn.functional.cross_entropy(logits, tokens.labels, reduction="sum") / fixed
            part.backward()
            loss = loss + part.detach()
        return loss

    def packed_student() -> torch.Tensor:
        loss = mllm.answer_tokens(mllm.pack([group])).log_probs.mean()
        loss.backward()
        return loss.detach()

    def plain_viker() -> torch.Tensor:
        loss = torch.zeros(())
        for pair in pairs:
            p = plain_ideal(mllm, [pair], irrelevant)
            logits, tokens = plain_logits(mllm, [pair])
            log_q = logits.log_softmax(-1)
            kl = (p * (p.clamp_min(1e-38).log() - log_q)).sum()
            part = (log_q[torch.arange(len(log_q)), tokens.labels].sum() + kl) / fixed
            part.backward()
            loss = loss + part.detach()
        return loss

    prefixes = IdealDistribution(mllm, irrelevant)  # the images are read once, for the whole run

    def packed_viker(stored: bool) -> torch.Tensor:
        if not stored:
            prefixes.forget_all()
        batch = mllm.pack([group])
        tokens = mllm.answer_tokens(batch)
        loss = tokens.log_probs.mean() + forward_kl(prefixes.reference(batch), tokens).mean()
        loss.backward()
        return loss.detach()

    routes = {
        "gradient ascent, plain": plain_student,
        "gradient ascent, packed": packed_student,
        "ViKeR, plain": plain_viker,
        "ViKeR, packed + prefix": lambda: packed_viker(False),
        "ViKeR, packed + stored": lambda: packed_viker(True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in routes}
    losses, gradients = {}, {}
    for _ in range(args.repeats + 1):
        for name, route in routes.items():
            mllm.zero_grad()
            started = time.perf_counter()
            losses[name] = float(route())
            seconds[name].append(time.perf_counter() - started)
            gradients[name] = torch.cat([p.grad.flatten() for p in mllm.parameters() if p.grad is not None])
    report(args, {name: statistics.median(values[1:]) for name, values in seconds.items()}, losses, gradients)


def report(args, seconds, losses, gradients) -> None:
    """Prints the table and writes the JSON."""
    table = Table(title=f"{args.questions} questions on one image, k = {args.k}, {args.threads} thread(s)")
    for column in ("route", "s", "times plain", "loss differs by", "gradient differs by"):
        table.add_column(column)
    rows = []
    for name, value in seconds.items():
        plain = "ViKeR, plain" if "ViKeR" in name else "gradient ascent, plain"
        loss = abs(losses[name] - losses[plain]) / abs(losses[plain])
        gradient = ((gradients[name] - gradients[plain]).norm() / gradients[plain].norm()).item()
        rows.append(
            {"route": name, "seconds": value, "speedup": seconds[plain] / value, "loss": loss, "gradient": gradient}
        )
        table.add_row(name, f"{value:.3f}", f"{seconds[plain] / value:.1f}x", f"{loss:.0e}", f"{gradient:.0e}")
    Console().print(table)
    facts = {**vars(args), "torch": torch.__version__, "machine": platform.machine(), "rows": rows}
    Path(__file__).with_name("results.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
