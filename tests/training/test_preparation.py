"""What a method learns before the first step, and methods around others that shape gradients."""

from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from support.weights import random_adapter, random_vanilla
from viker_lightning.data.datasets.mllmu import MLLMU
from viker_lightning.data.records import ImageGroup
from viker_lightning.methods import NPO, Around, GradientDifference, Stranger
from viker_lightning.models import MLLM, Lora
from viker_lightning.storage.runs import CheckpointFile
from viker_lightning.training import Unlearn
from viker_lightning.training.distributed import Processes
from viker_lightning.training.engine import Engine
from viker_lightning.training.preparation import Prepare, in_turns

SMALL = Engine(max_sequence_tokens=200, max_tokens=400, references="memory")


@pytest.fixture(scope="module")
def models(base_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    vanilla = random_vanilla(base_folder, folder / "vanilla", projector=0.3)
    return str(vanilla), str(random_adapter(vanilla, folder / "adapter"))


class Few(MLLMU):
    """One person a stream with four questions each."""

    @property
    def streams(self):
        return {name: [replace(p, vqa=p.vqa[:4]) for p in people[:1]] for name, people in super().streams.items()}


@pytest.fixture(scope="module")
def few(cache):
    module = Few("mini/ci", batch_size=4, questions_per_image=2)
    module.prepare_data()
    module.setup()
    return module


def run(models, data, method, *callbacks, steps=3, engine=SMALL, resume=None):
    seed_everything(0, verbose=False)
    module = Unlearn(method, models[0], Lora(), models[1], lr=1e-3, engine=engine)
    data.batches_per_step, data.steps_done = 1, 0
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "plugins": [CheckpointFile()]}
    trainer = Trainer(accelerator="cpu", max_steps=steps, callbacks=[*callbacks], **quiet)
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    return module


def trainable(module):
    return {name: p.detach() for name, p in module.mllm.named_parameters() if p.requires_grad}


class Salient(Around):
    """Moves only weights that matter more for the forget set than for the retain set."""

    def __init__(self, method):
        super().__init__(method)
        self.slopes, self.prepared = {}, 0

    def before_training(self, run):
        super().before_training(run)
        if run.resumed:
            return
        self.prepared += 1
        weights = {name: p for name, p in run.mllm.named_parameters() if p.requires_grad}
        for stream in ("forget", "retain"):
            total = {name: torch.zeros_like(p) for name, p in weights.items()}
            for tokens in run.passes(stream, f"saliency of {stream}"):
                found = torch.autograd.grad(tokens.mean(-tokens.log_probs), list(weights.values()))
                for name, slope in zip(weights, found, strict=True):
                    total[name] += slope
            self.slopes |= {f"{stream}/{name}": value for name, value in run.total(total).items()}

    def salient(self, name):
        return self.slopes[f"forget/{name}"].abs() > self.slopes[f"retain/{name}"].abs()

    def before_optimizer_step(self, model):
        for name, p in model.named_parameters():
            if p.grad is not None:
                p.grad.mul_(self.salient(name))

    def state_dict(self):
        return {"slopes": self.slopes, "inner": super().state_dict()}

    def load_state_dict(self, state):
        self.slopes = state["slopes"]
        super().load_state_dict(state["inner"])


def plain_slopes(models, data, stream):
    """The gradient of the mean over all answer tokens of a stream, in one pass."""
    mllm = MLLM.load(models[0])
    mllm.adapt(Lora(), models[1])
    groups = [ImageGroup(p.id, image, vqa=p.vqa) for p in data.streams[stream] for image in p.images]
    weights = {name: p for name, p in mllm.named_parameters() if p.requires_grad}
    tokens = mllm.answer_tokens(mllm.pack(groups))
    return dict(zip(weights, torch.autograd.grad(-tokens.log_probs.mean(), list(weights.values())), strict=True))


class SaveFirst(Callback):
    def __init__(self, file):
        self.file = file

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 1:
            trainer.save_checkpoint(self.file)


@pytest.mark.extended
def test_gradients_by_stream_and_a_run_that_is_resumed(models, few, tmp_path):
    """They are kept in the checkpoint: not taken again, from weights that have moved."""
    file = tmp_path / "step-1.ckpt"
    method = Salient(GradientDifference())
    whole = run(models, few, method, SaveFirst(file))
    assert method.prepared == 1 and all(p.grad is None for p in whole.mllm.parameters())
    for stream in ("forget", "retain"):
        for name, slope in plain_slopes(models, few, stream).items():
            assert (method.slopes[f"{stream}/{name}"] - slope).norm() <= 1e-4 * slope.norm(), name
    start = trainable(run(models, few, GradientDifference(), steps=0))
    for name, p in trainable(whole).items():
        moved, salient = p != start[name], method.salient(name)
        assert salient.any() and not salient.all()
        assert not moved[~salient].any() and moved[salient].float().mean() > 0.9
    again = Salient(GradientDifference())
    resumed = run(models, few, again, resume=str(file))
    assert again.prepared == 0 and resumed.global_step == 3
    for name, p in trainable(resumed).items():
        assert torch.equal(p, trainable(whole)[name]), name


class Spares(Around):
    """Leaves the first decoder layer as it is."""

    def before_optimizer_step(self, model):
        super().before_optimizer_step(model)
        for name, p in model.named_parameters():
            if p.grad is not None and "layers.0." in name:
                p.grad.zero_()


@pytest.mark.extended
@pytest.mark.parametrize("make", [NPO, lambda: Stranger(k=2, bound=0.01)])
def test_a_method_around_another_masks_its_gradients(models, few, make):
    start = trainable(run(models, few, make(), steps=0))
    plain, inner = run(models, few, make()), make()
    masked = trainable(run(models, few, Spares(inner)))
    assert sum("layers.0." in name for name in masked) == 14
    for name, p in masked.items():
        assert torch.equal(p, start[name]) == ("layers.0." in name), name
        assert not torch.equal(trainable(plain)[name], start[name])
    assert inner.state_dict() == Spares(inner).state_dict(), "what is inside is kept by what is around"


def test_every_question_once_or_behind_every_photo(mllm, data):
    """Photos take turns, so that all are shown if there are questions enough."""
    person = data.people()[0]
    groups = [ImageGroup(person.id, image, vqa=person.vqa[:5]) for image in person.images[:3]]
    groups.append(ImageGroup("somebody", None, vqa=person.vqa[:2]))
    prepare = Prepare(mllm, lambda _: groups, (), Processes())
    asked = {once: sum(len(t.labels) for t in prepare.passes("forget", "", once)) for once in (False, True)}
    lengths = [len(mllm.encoder.encode(vqa, True).answer) for vqa in person.vqa[:5]]
    assert asked == {False: 3 * sum(lengths) + sum(lengths[:2]), True: sum(lengths) + sum(lengths[:2])}
    turns = [(group.image, group.vqa) for group in in_turns(groups)]
    assert turns[:3] == [(image, person.vqa[:5][i::3]) for i, image in enumerate(person.images[:3])]
    assert turns[3:] == [(None, person.vqa[:2])]
    assert [group.vqa for group in in_turns(groups[:1])] == [person.vqa[:5]]
