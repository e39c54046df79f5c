"""``batch.again``: the questions of a step passed once more, with the weights as they are then."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from support.weights import random_vanilla
from viker_lightning.data.datasets.mllmu import MLLMU
from viker_lightning.errors import UserError
from viker_lightning.methods import Forget, Method, Retain
from viker_lightning.models import Lora
from viker_lightning.training import Unlearn
from viker_lightning.training.engine import Engine


class Few(MLLMU):
    """Three people to forget, one without photo to keep: the retain set runs out before the last part of a step."""

    @property
    def streams(self):
        found = super().streams
        kept = replace(found["retain"][0], images=(), vqa=found["retain"][0].vqa[:2])
        return {"forget": [replace(p, vqa=p.vqa[:4]) for p in found["forget"][:3]], "retain": [kept]}


class Again(Method):
    """Notes its parts, and hands them to ``look`` where the gradients of the step are complete."""

    needs = (Forget(), Retain())
    layers = (0,)

    def __init__(self, look):
        self.look, self.parts = look, []

    def loss(self, batch):
        self.parts.append(batch)
        return {"loss": sum(tokens.mean(-tokens.log_probs) for tokens in batch.tokens.values())}

    def before_optimizer_step(self, model):
        with torch.enable_grad():
            self.look(self.parts, model)


@pytest.fixture(scope="module")
def vanilla(base_folder, tmp_path_factory):
    return str(random_vanilla(base_folder, tmp_path_factory.mktemp("vanilla"), projector=0.3))


@pytest.fixture(scope="module")
def few(cache):
    module = Few("mini/ci", batch_size=12, questions_per_image=2)
    module.prepare_data()
    module.setup()
    return module


PARTS = Engine(max_sequence_tokens=100, max_tokens=100)


def step(vanilla, data, look, engine=PARTS, **options):
    """One step; returns the parts that the method saw."""
    seed_everything(0, verbose=False)
    method = Again(look)
    module = Unlearn(method, vanilla, Lora(r=4, alpha=8), lr=1e-3, engine=engine)
    data.batches_per_step, data.steps_done = 1, 0
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(accelerator="cpu", max_steps=1, enable_model_summary=False, **quiet, **options).fit(module, datamodule=data)
    return method.parts


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def mean_ce(parts, stream):
    """The mean over the answer tokens of a whole step, of what they are as the weights are now."""
    passed = [part.again(stream) for part in parts]
    return sum(tokens.mean(-tokens.log_probs) for tokens in passed)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_same_questions_and_numbers_as_at_first(vanilla, few, precision):
    """Also in mixed precision, whose context a hook of the trainer is called outside of."""
    seen = []

    def look(parts, model):
        for part in parts:
            for stream, first in part.tokens.items():
                second = part.again(stream)
                seen.append((stream, len(second.labels)))
                assert second is not first and second.n_questions == first.n_questions and second.step == first.step
                for name in ("labels", "question", "private", "hidden", "log_probs"):
                    assert torch.equal(getattr(second, name), getattr(first, name)), name
                assert second.hidden.dtype == first.hidden.dtype
                assert torch.equal(second.layers[0], first.layers[0])
                assert second.hidden.requires_grad == bool(len(second.labels)), "with a graph of its own"

    parts = step(vanilla, few, look, precision=precision)
    assert len(parts) > 2 and len(seen) == 2 * len(parts)
    assert ("retain", 0) in seen and ("forget", 0) not in seen, "a stream that has run out says nothing again"


def test_gradients_of_weights_that_have_changed(vanilla, few):
    """They are what a run that begins at these weights has as the gradient of its step."""
    found = {}

    def moved(parts, model):
        generator = torch.Generator().manual_seed(1)
        found["at first"] = [p.grad.clone() for p in trained(model)]
        with torch.no_grad():
            for p in trained(model):
                p += 0.05 * torch.randn(p.shape, generator=generator)
        model.zero_grad()
        (mean_ce(parts, "forget") + mean_ce(parts, "retain")).backward()
        found["again"] = [p.grad.clone() for p in trained(model)]
        found["plain"] = plain_gradient(model, few)

    step(vanilla, few, moved)
    for at_first, again, plain in zip(*(found[name] for name in ("at first", "again", "plain")), strict=True):
        assert (again - plain).norm() <= 1e-4 * plain.norm()
        assert (again - at_first).norm() > 0.05 * plain.norm(), "it matters where the weights are"


def plain_gradient(model, data):
    """That of the mean cross-entropies, the questions of a step being packed anew, all at once."""
    groups = next(iter(data.train_dataloader())).content
    losses = [-model.answer_tokens(model.pack(groups[stream])).log_probs.mean() for stream in ("forget", "retain")]
    return torch.autograd.grad(sum(losses), trained(model))


def test_parts_add_up_to_the_whole(vanilla, few):
    found = {}

    def look(parts, model):
        for stream in ("forget", "retain"):
            slopes = torch.autograd.grad(mean_ce(parts, stream), trained(model))
            found[len(parts), stream] = torch.cat([slope.flatten() for slope in slopes])

    cut, whole = len(step(vanilla, few, look)), len(step(vanilla, few, look, Engine()))
    assert cut > 2 and whole == 1
    for stream in ("forget", "retain"):
        assert (found[cut, stream] - found[1, stream]).norm() <= 1e-4 * found[1, stream].norm()


def test_misuse_is_one_line(vanilla, few):
    def undeclared(parts, model):
        parts[0].again("strangers")

    with pytest.raises(
        UserError, match=r"^this method reads strangers, but declares forget, retain; add .* its needs$"
    ):
        step(vanilla, few, undeclared)

    def sharded(parts, model):
        model.lockstep = SimpleNamespace()
        parts[0].again("forget")

    with pytest.raises(UserError, match=r"^trainer\.strategy: batch\.again .* found sharded weights; use ddp$"):
        step(vanilla, few, sharded)
