"""The embedded model's vision tower: a small CLIP encoder that has learnt to see, on pictures of nobody.

It is trained to name the traits of random portraits and the contents of drawn scenes and pets, none of which is in a
benchmark, then frozen. It stands for the pretrained CLIP of a real MLLM: vanilla and gold model share it, and no
identity can hide in it.
"""

import hashlib
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from viker_lightning.data import image_files
from viker_lightning.storage.cache import built, cache_folder
from viker_lightning.terminal.progress import track

from . import scenes
from .portraits import draw_stranger

VERSION = "1"
SIZE, PATCH = 64, 16
CONFIG: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": PATCH,
}
PICTURES = {"portrait": (draw_stranger, 3500), "scene": (scenes.draw_scene, 800), "pet": (scenes.draw_pet, 500)}
STEPS, BATCH, LEARNING_RATE, SEED = 600, 64, 1e-3, 0
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def pretrained_tower() -> Path:
    """The folder with the pretrained tower; trains it on first use and says so."""
    folder = cache_folder("models", f"mini-tower-{fingerprint()}")
    return built(folder, "the embedded vision tower", lambda new: train_tower().save_pretrained(new))


def fingerprint() -> str:
    """Identifies what the tower is made of."""
    counts = {kind: count for kind, (_, count) in PICTURES.items()}
    made_of = (VERSION, CONFIG, counts, STEPS, BATCH, LEARNING_RATE)
    return hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]


def train_tower() -> CLIPVisionModel:
    """Trains the tower for a fixed number of steps to classify traits from its patch features."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        images, labels, classes = _draw_pictures()
        tower = CLIPVisionModel(CLIPVisionConfig(**CONFIG))
        heads = nn.Linear((SIZE // PATCH) ** 2 * CONFIG["hidden_size"], sum(classes))
        optimizer = torch.optim.AdamW([*tower.parameters(), *heads.parameters()], lr=LEARNING_RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, STEPS, pct_start=0.1)
        for _ in track(range(STEPS), "vision tower", STEPS, "steps"):
            chosen = torch.randint(len(images), (BATCH,))
            features = tower(_augment(images[chosen])).last_hidden_state[:, 1:].flatten(1)
            losses = [
                F.cross_entropy(logits, target, ignore_index=-1, reduction="sum") / BATCH
                for logits, target in zip(heads(features).split(classes, dim=1), labels[chosen].T, strict=True)
            ]
            loss = torch.stack(losses).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return tower.eval()


def pixels(png: bytes) -> Tensor:
    """``[3, H, W]`` uint8 of an encoded picture."""
    return torch.from_numpy(np.array(image_files.pixels(png))).permute(2, 0, 1).contiguous()


def normalise(pixels: Tensor) -> Tensor:
    """``[n, 3, H, W]`` uint8 to what the tower reads."""
    return pixels.float().div(255).sub(0.5).div(0.5)


def _augment(pixels: Tensor) -> Tensor:
    """Random shifts and brightness; no flip, since a drawing's left and right may be a trait."""
    padded = F.pad(normalise(pixels), (4, 4, 4, 4), mode="replicate")
    dx, dy = torch.randint(0, 9, (2,)).tolist()
    return padded[:, :, dy : dy + SIZE, dx : dx + SIZE] * torch.empty(len(pixels), 1, 1, 1).uniform_(0.85, 1.15)


def _draw_pictures() -> tuple[Tensor, Tensor, list[int]]:
    """Images ``[n, 3, H, W]`` uint8, classes ``[n, traits]`` (-1 where a picture lacks the trait), class counts."""
    jobs = [(kind, i) for kind, (_, count) in PICTURES.items() for i in range(count)]

    def draw(job: tuple[str, int]) -> tuple[Tensor, dict[str, str]]:
        kind, i = job
        png, traits = PICTURES[kind][0](random.Random(f"tower/{SEED}/{kind}/{i}"), SIZE)
        return pixels(png), {f"{kind} {name}": value for name, value in traits.items()}

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        drawn = list(track(pool.map(draw, jobs), "pictures of nobody", len(jobs), "pictures"))
    names = sorted({name for _, traits in drawn for name in traits})
    values = {name: sorted({t[name] for _, t in drawn if name in t}) for name in names}
    index = {name: {value: i for i, value in enumerate(found)} for name, found in values.items()}
    labels = [[index[name][traits[name]] if name in traits else -1 for name in names] for _, traits in drawn]
    return torch.stack([image for image, _ in drawn]), torch.tensor(labels), [len(values[name]) for name in names]
