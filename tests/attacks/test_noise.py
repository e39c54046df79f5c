"""Universal noise: what it does to pixels in every family, that it is learned, and on whom."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from support.families import FAMILIES, random_model
from support.other_families import gemma3
from viker_lightning.attacks.kinds.noise import HALVES, RANDOM, UNIVERSAL, Noised, UniversalNoise, halves, lay_noise
from viker_lightning.attacks.material import gather
from viker_lightning.data.records import VQA, ImageGroup, person_name
from viker_lightning.errors import UserError

QUESTION = VQA("Where does this person live?", "In Tarn Hollow.", ("Tarn Hollow",))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_sees_noise_and_gives_a_gradient(name, data, monkeypatch):
    """No noise changes nothing; Gemma's layers look back far enough to see the photo."""
    monkeypatch.setitem(FAMILIES, "gemma3", partial(gemma3, sliding_window=512))
    model = random_model(name).requires_grad_(False)
    group = ImageGroup("1", data.people()[0].images[0], vqa=(QUESTION,))
    before = model.answer_tokens(model.pack([group])).log_probs
    noised = lay_noise(model)
    tokens = model.answer_tokens(model.pack([group]))
    torch.testing.assert_close(tokens.log_probs, before, rtol=1e-3, atol=1e-4)
    (gradient,) = torch.autograd.grad(tokens.log_probs.sum(), noised.laid())
    assert gradient.shape == noised.laid().shape and gradient.abs().max() > 0
    noised.noise = torch.full_like(noised.laid(), 0.2)
    with torch.no_grad():
        assert not torch.allclose(model.answer_tokens(model.pack([group])).log_probs, before, atol=1e-3)


def test_a_step_goes_the_way_the_loss_falls(data):
    """The gradient is that of finite differences."""
    model = random_model("llava").requires_grad_(False)
    batch = model.pack([ImageGroup("1", data.people()[0].images[0], vqa=(QUESTION,))])
    noised = lay_noise(model)

    def loss(step=0.0, direction=None):
        if direction is not None:
            noised.noise = (step * direction).requires_grad_()
        return -model.answer_tokens(batch).log_probs.mean()

    loss()
    direction = torch.rand(noised.laid().shape, generator=torch.Generator().manual_seed(0))  # from 0.1: nothing is cut
    centre = loss(0.05, direction)
    centre.backward()
    slope = (noised.laid().grad * direction).sum().item()
    with torch.no_grad():
        finite = (loss(0.0502, direction) - loss(0.0498, direction)) / 0.0004
    assert slope == pytest.approx(finite.item(), rel=0.05, abs=1e-3)


def test_pixels_stay_between_black_and_white():
    class Images:
        image_mean, image_std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]

        def __call__(self, values):
            return {"pixel_values": values}

    class Processor:
        image_processor, size = Images(), 7

    noised = Noised(Processor(), torch.device("cpu"))
    mean, std = (torch.tensor(v)[:, None, None] for v in (Images.image_mean, Images.image_std))
    pixels = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    pixels[0, 0, 0, 0], pixels[0, 0, 0, 1] = 0.99, 0.01
    values = noised.image_processor((pixels - mean) / std)["pixel_values"]
    torch.testing.assert_close(values * std + mean, pixels)
    assert noised.size == 7 and noised.image_processor.image_std == Images.image_std
    noise = 0.05 * torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    noised.noise = noise
    values = noised.image_processor((pixels - mean) / std)["pixel_values"]
    torch.testing.assert_close(values * std + mean, (pixels + noise).clamp(0, 1))


def test_a_patch_has_its_channels_one_after_another():
    class Images:
        image_mean, image_std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]

        def __call__(self, values):
            return {"pixel_values": values}

    class Processor:
        image_processor = Images()

    noised = Noised(Processor(), torch.device("cpu"))
    values = noised.image_processor(torch.zeros(7, 6))["pixel_values"]
    noised.noise = torch.full((6,), 0.1)
    values = noised.image_processor(torch.zeros(7, 6))["pixel_values"]
    torch.testing.assert_close(values[3], 0.1 / torch.tensor([0.2, 0.2, 0.3, 0.3, 0.4, 0.4]))
    with pytest.raises(UserError, match="multiple of 3 channels"):
        Noised(Processor(), torch.device("cpu")).image_processor(torch.zeros(7, 8))


def test_noise_is_learned_within_its_bounds(subject, material):
    attack = UniversalNoise(steps=12, alpha=0.02, epsilon=0.1, batch_size=4)
    mllm = subject.load()
    noised = lay_noise(mllm)
    first = material.people[0]
    same = replace(first, images=first.images[:1], vqa=first.vqa[:1])  # in every step
    losses = attack.learn(mllm, noised, [same], 0)
    assert len(losses) == 12 and losses[-1] < losses[0]
    assert 0 < noised.laid().abs().max() <= 0.1 + 1e-6 and not noised.laid().requires_grad
    assert all(p.grad is None for p in mllm.parameters())


def test_nobody_is_asked_about_under_noise_learned_on_them(material):
    seen = []
    for which in (0, 1):
        taught, asked = halves(material, which)
        assert taught and not {person_name(p.id) for p in taught} & {g.person for g in asked}
        assert {person_name(p.id) for p in taught} <= {person_name(p.id) for p in material.people}
        seen += asked
    assert sorted(g.person for g in seen) == sorted(g.person for g in material.asked)


def test_every_part_asks_about_forgotten_and_kept(subject, material):
    attack = UniversalNoise(steps=1, batch_size=2)
    found = {part: attack.carry_out(part, subject, material) for part in attack.parts()}
    assert len(found[attack.clean]) == sum(len(g.vqa) for g in material.asked)
    for part in HALVES:
        assert {(a.series, a.whose) for a in found[part]} == {
            (series, whose) for series in (UNIVERSAL, RANDOM) for whose in ("forget", "retain")
        }
    both = [a for part in HALVES for a in found[part] if a.series == UNIVERSAL]
    assert sorted((a.person, a.question) for a in both) == sorted((a.person, a.question) for a in found[attack.clean])


def test_a_single_person_leaves_nobody_to_ask_about(subject, data):
    alone = gather(data, people=1)
    attack = UniversalNoise(steps=1)
    assert [attack.carry_out(part, subject, alone) for part in HALVES] == [[], []]
