"""Universal noise by gradient: one pattern, learned on photos of some people, laid over photos of the others."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override

from viker_lightning.attacks.attempt import Attempt
from viker_lightning.attacks.base import Attack, ask
from viker_lightning.attacks.material import Material
from viker_lightning.attacks.subject import Subject
from viker_lightning.data.records import ImageGroup, Person, Picture, Split, person_name
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, split_to_budget
from viker_lightning.models.vision import Vision
from viker_lightning.terminal.progress import Bar

HALVES = ("noise learned on one half", "noise learned on the other half")
UNIVERSAL, RANDOM = "universal noise", "random noise of the same size"


@dataclass(frozen=True)
class UniversalNoise(Attack):
    """Looks for a pattern on the pixels that makes true answers likely, whoever is on the photo (SUA).

    The people to be forgotten are cut in two. The noise is learned on photos, questions and true answers of one half by
    the sign of the gradient, and laid over the photos of the other half, about which it was told nothing; then the
    other way round. So everybody is asked about once, and nobody's answers are taught to the noise that they are asked
    under. People who are kept get the same noise, one half each. Noise of the same size and drawn signs is asked under
    beside it, since any noise disturbs.

    The noise is laid over pixels as the model's processor has sized them, and the sum stays between black and white; it
    is not rounded to 8 bits. A model that sees a photo in tiles has it on each of them, one that is given a list of
    patches (Qwen) on each patch. Two things are not as published: nothing keeps the noise from being removed by a
    denoiser (a term of weight 0.7 there), and there it is learned on the people who are asked about. It takes ``steps``
    passes forward and back through language model and vision tower, twice: costly, so not for every run.

    Args:
        steps: of the gradient, each on a batch.
        alpha: size of a step in every pixel, in units of the range from black to white.
        epsilon: most noise in a pixel.
        batch_size: photos a step, each with a question.
    """

    name = "noise"
    about = "lays one pattern over photos, a universal adversarial perturbation optimised on other forgotten people"
    source = (
        "SUA: Zood123/MLLM-Unlearning-Attack 214c2f3 (alpha 1/255, epsilon 12/255, 500 steps, batches of 6); "
        "Open-MMUnlearning configs/eval/sua.yaml"
    )
    beside = (RANDOM,)
    costly = True
    conditions = (Attack.clean, *HALVES)

    steps: int = 500
    alpha: float = 1 / 255
    epsilon: float = 12 / 255
    batch_size: int = 6

    @override
    @classmethod
    def quick(cls) -> Self:
        return cls(steps=20)

    @override
    def carry_out(self, part: str, subject: Subject, material: Material) -> list[Attempt]:
        if part not in HALVES:
            return ask(subject.load(), material.asked, self.clean)
        taught, asked = halves(material, HALVES.index(part))
        if not taught or all(group.split == Split.RETAIN for group in asked):
            return []  # a single person, or people without photos
        mllm = subject.load()
        noised = lay_noise(mllm)
        self.learn(mllm, noised, taught, material.seed)
        found = ask(mllm, asked, UNIVERSAL)
        signs = torch.randint(0, 2, noised.laid().shape, generator=torch.Generator().manual_seed(material.seed))
        noised.noise = (2 * signs - 1).to(noised.laid()) * self.epsilon
        return [*found, *ask(mllm, asked, RANDOM)]

    def learn(self, mllm: MLLM, noised: "Noised", people: Sequence[Person], seed: int) -> list[float]:
        """Takes the steps one after another; gives the loss before each: mean negative log-probability, in nats."""
        draw, losses = random.Random(seed), []
        with Bar(UNIVERSAL, self.steps) as bar:
            for _ in range(self.steps):
                groups = [
                    ImageGroup(person.id, draw.choice(person.images), vqa=(draw.choice(person.vqa),))
                    for person in draw.choices(people, k=self.batch_size)
                ]
                total = sum(len(mllm.encoder.encode(q, True).answer) for g in groups for q in g.vqa)
                loss = 0.0
                for part in split_to_budget(mllm, groups):
                    share = -mllm.answer_tokens(mllm.pack(part)).log_probs.sum() / total
                    share.backward()
                    loss += share.item()
                noise = noised.laid()
                assert noise.grad is not None
                moved = noise.detach() - self.alpha * noise.grad.sign()
                noised.noise = moved.clamp(-self.epsilon, self.epsilon).requires_grad_()
                losses.append(loss)
                bar.advance()
        noised.noise = noised.laid().detach()
        return losses


class Noised:
    """A processor whose pixels have noise on them; in everything else it is the one it was.

    Attributes:
        noise: ``[3, H, W]`` of a tile, or ``[d]`` of a patch, in units of the range from black to white; ``None`` until
            the first image shows how much that is.
    """

    def __init__(self, processor: Any, device: torch.device) -> None:
        self._processor, self._device = processor, device
        self.noise: Tensor | None = None
        self.image_processor = _NoisedImages(processor.image_processor, self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """As the processor, with noise on the pixels."""
        return self.add(self._processor(*args, **options))

    def laid(self) -> Tensor:
        """The noise, after the first image."""
        assert self.noise is not None
        return self.noise

    def add(self, inputs: Any) -> Any:
        """Puts the noise on what a processor made of images; what has no pixels stays as it is."""
        values = inputs.get("pixel_values")
        if isinstance(values, Tensor):
            inputs["pixel_values"] = self._noised(values.to(self._device, torch.float32))
        return inputs

    def _noised(self, values: Tensor) -> Tensor:
        if self.noise is None:
            shape = values.shape[-3:] if values.dim() >= 4 else values.shape[-1:]
            self.noise = torch.zeros(shape, device=values.device, requires_grad=True)
        mean, std = self._scale(self.noise.shape)
        pixels = values * std + mean
        return ((pixels + self.noise).clamp(0, 1) - mean) / std

    def _scale(self, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What was taken off pixels from 0 to 1, and what they were divided by, channel by channel."""
        images = self._processor.image_processor
        found = []
        for name, without in (("image_mean", 0.0), ("image_std", 1.0)):
            given = getattr(images, name, None) if getattr(images, "do_normalize", True) else None
            channels = torch.tensor(list(given or [without] * 3), device=self._device)
            if len(shape) == 3:
                found.append(channels[:, None, None])
            elif shape[0] % len(channels):
                raise UserError(
                    f"noise: {type(images).__name__} gives pixels in rows of {shape[0]}, expected a multiple of "
                    f"{len(channels)} channels; leave this attack out"
                )
            else:  # of a patch, channel after channel
                found.append(channels.repeat_interleave(shape[0] // len(channels)))
        return found[0], found[1]


class _NoisedImages:
    """The part of a processor that makes pixels of images."""

    def __init__(self, images: Any, owner: Noised) -> None:
        self._images, self._owner = images, owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._images, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._owner.add(self._images(*args, **options))


class _Unkept(Vision):
    """Features that are computed every time, through which a gradient reaches the pixels."""

    @override
    def features(self, model: Any, pictures: Sequence[Picture]) -> list[Tensor]:
        if not pictures:
            return []
        found = self.family.tower_features(model, self.processor, [p.open() for p in pictures])
        return self.family.project(model, found, [p.size() for p in pictures])


def lay_noise(mllm: MLLM) -> Noised:
    """Has a model see every photo under noise, from now on; the noise is none at first."""
    assert mllm.packs is not None  # tried out now, without noise
    noised = Noised(mllm.processor, mllm.device)
    mllm.processor, mllm.vision = noised, _Unkept(mllm.family, noised, "off")
    return noised


def halves(material: Material, which: int) -> tuple[list[Person], list[ImageGroup]]:
    """Records of one half of the people to be forgotten; what is asked about the other half, and half of the kept."""
    taught, asked = list[Person](), list[ImageGroup]()
    for records, groups in ((material.people, material.forget), (material.kept, material.retain)):
        people = sorted({person_name(p.id) for p in records})
        drawn = random.Random(material.seed).sample(people, len(people))
        half = set(drawn[which::2])
        asked += [g for g in groups if person_name(g.person) in half]
        if records is material.people:
            taught = [p for p in records if p.images and p.vqa and person_name(p.id) not in half]
    return taught, asked
