"""Streams that are made of forget questions, where there is little to make them of."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from support.weights import random_vanilla
from viker_lightning.data.records import ImageGroup
from viker_lightning.datasets import MLLMU
from viker_lightning.ideal import IdealDistribution
from viker_lightning.methods import Method, Stranger
from viker_lightning.models import Lora
from viker_lightning.pictures.irrelevant import irrelevant_images
from viker_lightning.training import Unlearn
from viker_lightning.training.streams import Derived


@pytest.fixture(scope="module")
def vanilla(base_folder, tmp_path_factory):
    return str(random_vanilla(base_folder, tmp_path_factory.mktemp("vanilla")))


class Watched(Unlearn):
    """Keeps what it logs of each step."""

    def on_train_start(self):
        self.seen = []
        super().on_train_start()

    def on_train_batch_end(self, *args):
        super().on_train_batch_end(*args)
        self.seen.append({name: value.item() for name, value in self.step.logged.items()})


def steps(method, vanilla, number, kind=Watched):
    seed_everything(0, verbose=False)
    data = MLLMU("mini/ci", batch_size=2, questions_per_image=2)
    module = kind(method, vanilla, Lora(r=4), lr=1e-3)
    trainer = Trainer(
        accelerator="cpu", max_steps=number, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(module, datamodule=data)
    return module


class WithoutPhotos(Watched):
    """Its second step asks in words alone."""

    def streams(self, batch):
        asked = [replace(group, image=None) for group in batch["forget"]] if self.global_step == 1 else batch["forget"]
        return super().streams({"forget": asked})


def test_a_step_without_a_photo_asks_nothing_about_strangers(vanilla):
    """A mean over no tokens is 0, no division by 0."""
    seen = steps(Stranger(k=2), vanilla, 3, kind=WithoutPhotos).seen
    assert seen[1]["hold_kl"] == 0 < min(seen[1]["ideal_kl"], seen[2]["hold_kl"])
    assert all(torch.isfinite(torch.tensor(list(step.values()))).all() for step in seen)


def answers(group):
    return {(one.question, one.answer) for one in group.vqa}


def test_everything_holds_whatever_a_step_may_ask(data):
    """Else a model that is trained in full would be asked what was not prepared."""
    forget = [photo(person) for person in data.people(data.forget_ids)][:3]
    pictures = irrelevant_images("people", 4, size=64)
    method = Method()
    method.alternative = "own"
    derived = Derived(method, 0, pictures, [])
    dropped = forget[0].vqa[0].question
    derived.own_answers = SimpleNamespace(
        answer=lambda picture, question: None if question == dropped else f"{picture.key[:4]} {question}"
    )
    whole = derived.everything("alternative", forget)
    for step in range(6):
        shown = derived.groups("alternative", forget, step)
        assert shown and all(group.vqa for group in shown)
        for group in shown:
            assert dropped not in {one.question for one in group.vqa} and group.image is not None
            assert any(group.image == one.image and answers(group) <= answers(one) for one in whole)


def photo(person):
    return ImageGroup(person.id, person.images[0], vqa=person.vqa[:3])


def test_other_answers_beside_strangers(data):
    """Forget questions keep their own photos there."""
    forget = [photo(person) for person in data.people(data.forget_ids)][:3]
    method = Method()
    method.alternative = ("No.", "Never.")
    derived = Derived(method, 0, irrelevant_images("people", 4, size=64), [])
    assert derived.everything("alternative", forget) == derived.groups("alternative", forget, 5)
    assert {answer for group in derived.everything("alternative", forget) for _, answer in answers(group)} <= {
        "No.",
        "Never.",
    }
    gone = [replace(group, image=None) for group in forget]
    method.alternative = "own"
    assert derived.groups("strangers", gone, 0) == []


class Shown(Method):
    """Reads what is said of strangers' answers by the student alone."""

    needs = {"forget": {}, "strangers": {}}

    def loss(self, batch):
        return {"loss": batch.forget.mean(batch.forget.log_probs) - batch.strangers.mean(batch.strangers.log_probs)}


def test_nobody_is_asked_about_strangers_unless_that_is_declared(vanilla, monkeypatch):
    monkeypatch.setattr(IdealDistribution, "prepare", lambda *_: pytest.fail("asked"))
    module = steps(Shown(), vanilla, 2)
    assert module.global_step == 2 and module.references.strangers is None
