"""What every method keeps to, those of the package and any that is added to it."""

import copy
import inspect
from collections import defaultdict

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from support.every_method import ARGUMENTS, CASES, EVERY, PREPARE, few, make
from support.marks import quick
from support.weights import random_vanilla
from viker_lightning import methods
from viker_lightning.errors import UserError
from viker_lightning.ideal import References
from viker_lightning.methods import Batch, Method, Strangers
from viker_lightning.methods.base import check_needs
from viker_lightning.models import Lora
from viker_lightning.storage.runs import CheckpointFile
from viker_lightning.training import Unlearn
from viker_lightning.training.engine import Engine

WHOLE = Engine(references="memory")
PARTS = Engine(max_sequence_tokens=140, max_tokens=200, references="memory")


def of(cases, *shown):
    """As parameters; if some are named, all others are left to the extended tests."""
    names = [f"{kind.__name__}-{number}" for kind, number in cases]
    cases = quick(cases, lambda case: not shown or f"{case[0].__name__}-{case[1]}" in shown)
    return pytest.mark.parametrize(("kind", "number"), cases, ids=names)


every_method = of(CASES)
WITH_STEPS = [(kind, number) for kind, number in CASES if kind.takes_steps]
every_method_with_steps = of(WITH_STEPS)
EDITS = [(kind, number) for kind, number in CASES if not kind.takes_steps and kind is not methods.PromptOnly]
every_edit = of(EDITS, "MANU-0")


@pytest.mark.parametrize("kind", [one for one in EVERY if "retain_weight" in inspect.signature(one).parameters])
def test_what_is_retained_is_never_unlearned(kind):
    with pytest.raises(UserError, match=f"^{kind.__name__}.*retain_weight(=|: found )-1.0"):
        kind(retain_weight=-1.0)


def test_every_method_is_tried():
    assert {getattr(methods, name) for name in methods.NAMES} <= {*EVERY}
    assert ARGUMENTS.keys() <= {*EVERY}


@pytest.fixture(scope="module")
def vanilla(base_folder, tmp_path_factory):
    return str(random_vanilla(base_folder, tmp_path_factory.mktemp("vanilla"), projector=0.3))


class Watch(Callback):
    """Notes what is logged of every step, and its gradient as the method leaves it; saves after the first one."""

    def __init__(self, file=None):
        self.file = file
        self.terms, self.gradients = [], []

    def on_fit_start(self, trainer, module):
        clip = module.configure_gradient_clipping

        def clipping(*given, **options):
            self.gradients.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
            clip(*given, **options)

        module.configure_gradient_clipping = clipping

    def on_train_batch_end(self, trainer, module, *_):
        self.terms.append({name: value.item() for name, value in module.step.logged.items()})
        if self.file is not None and trainer.global_step == 1:
            trainer.save_checkpoint(self.file)


LORA = Lora(r=4, alpha=8)


def run(vanilla, data, method, engine=WHOLE, steps=2, file=None, resume=None, kind=Unlearn, lora=LORA, **options):
    """The module after a few steps, and what was noted of them."""
    seed_everything(0, verbose=False)
    data = few() if isinstance(method, PREPARE) else data
    module, watch = kind(method, vanilla, lora, lr=1e-3, engine=engine), Watch(file)
    data.batches_per_step, data.steps_done = 1, 0
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "use_distributed_sampler": False, "plugins": [CheckpointFile()]}
    trainer = Trainer(accelerator="cpu", max_steps=steps, callbacks=[watch], **quiet, **options)
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    return module, watch


def weights(module):
    return torch.cat([p.detach().float().flatten() for p in module.parameters() if p.requires_grad])


@every_method
def test_what_it_declares_can_be_given_and_stays(kind, number):
    method = make(kind, number)
    check_needs(method)
    assert vars(kind).get("needs", Method.needs) is not method.needs or "needs" not in vars(method)
    assert kind.__doc__ and "loss" in dir(kind)


@of(WITH_STEPS, "ViKeR-0", "Stranger-0", "DPO-0", "RMU-0", "MMUnlearner-0")
def test_a_step_in_parts_is_the_whole_step(vanilla, data, kind, number, monkeypatch):
    """Every term that is logged, and the gradient, before any optimizer touches it."""
    parts, loss = [], kind.loss
    monkeypatch.setattr(kind, "loss", lambda self, batch: parts.append(batch) or loss(self, batch))
    _, whole = run(vanilla, data, make(kind, number), steps=1)
    assert len(parts) == 1
    assert whole.gradients[0].norm() > 1e-6
    if make(kind, number).whole_steps:
        with pytest.raises(UserError, match="this objective has no parts, but the step has"):
            run(vanilla, data, make(kind, number), PARTS, steps=1)
        return
    _, small = run(vanilla, data, make(kind, number), PARTS, steps=1)
    assert len(parts) > 3
    assert (small.gradients[0] - whole.gradients[0]).norm() < 1e-4 * whole.gradients[0].norm()
    assert small.terms[0] == pytest.approx(whole.terms[0], rel=1e-3, abs=1e-4)


def same(one, other):
    """Whether two states hold the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return one == other


@of(WITH_STEPS, "ViKeR-0", "Stranger-1")
def test_a_run_that_is_resumed_ends_as_if_it_had_not_been(vanilla, data, tmp_path, kind, number):
    """Bit for bit: weights, what is logged, and the method's own state."""
    file = tmp_path / "step-1.ckpt"
    whole, watched = run(vanilla, data, make(kind, number), steps=3, file=file)
    method = make(kind, number)
    fresh = copy.deepcopy(method.state_dict())
    resumed, after = run(vanilla, data, method, steps=3, resume=str(file))
    assert len(after.terms) == 2 and after.terms == watched.terms[1:]
    assert torch.equal(weights(resumed), weights(whole))
    assert same(method.state_dict(), whole.method.state_dict())
    if "bound" in (ARGUMENTS.get(kind, [dict])[number]()):
        assert not same(method.state_dict(), fresh), "the dual weight has moved"


@pytest.mark.extended
@every_method_with_steps
@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_bf16_is_finite(vanilla, data, kind, number, precision):
    module, watch = run(vanilla, data, make(kind, number), precision=precision)
    assert all(value == value and abs(value) < 1e6 for terms in watch.terms for value in terms.values())
    assert all(gradient.isfinite().all() and gradient.abs().max() > 0 for gradient in watch.gradients)
    assert weights(module).isfinite().all()


class Noted(dict):
    """Distributions that note which are looked at."""

    def __getitem__(self, key):
        Reads.read |= {key}
        return super().__getitem__(key)


class Reads(Batch):
    """Notes what a loss reads."""

    read = frozenset()

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.distributions = Noted(self.distributions)

    def __getitem__(self, stream):
        Reads.read |= {stream}
        return super().__getitem__(stream)

    def reference(self, stream, name):
        Reads.read |= {(stream, name)}
        return super().reference(stream, name)


@of(WITH_STEPS, "ViKeR-0", "Held-2", "DPO-1", "RMU-0")
def test_nothing_is_computed_that_is_not_declared_nor_declared_and_not_read(vanilla, data, kind, number, monkeypatch):
    """Of streams the student's tokens, of references no more than their level."""
    method = make(kind, number)
    asked = defaultdict(set)
    look_up = References.look_up

    def noted(self, stream, *rest):
        references, distributions = look_up(self, stream, *rest)
        for name, reference in references.items():
            asked[stream].add(name)
            level = method.streams[stream].levels[name]
            assert (name in distributions) == (level == "full")
            assert (reference.vector.shape[1] > 0) == (level == "kl")
        assert distributions.keys() <= references.keys()
        asked.setdefault(stream, set())
        return references, distributions

    monkeypatch.setattr(References, "look_up", noted)
    monkeypatch.setattr("viker_lightning.training.unlearn.Batch", Reads)
    monkeypatch.setattr(Reads, "read", frozenset())
    module, _ = run(vanilla, data, method, steps=1)
    needs = {name: set(stream.levels) for name, stream in method.streams.items()}
    assert dict(asked) == needs
    assert Reads.read >= {(stream, name) for stream, names in needs.items() for name in names}
    assert {one for one in Reads.read if isinstance(one, str)} == needs.keys()
    assert (module.references.ideal is not None) == ("irrelevant" in method.references)
    rehearsal = "strangers" in needs and method.streams["strangers"].rehearsal
    stored = "own" in needs.get("strangers", set()) and not rehearsal
    assert (module.references.strangers is not None) == stored
    assert bool(module.pictures) == ("irrelevant" in method.references)
    own = "alternative" in needs and isinstance(method.streams["alternative"].answers, Strangers)
    assert bool(module.strangers) == ("strangers" in needs or own)
    assert (module.variants.own_answers is not None) == (own or rehearsal)


@every_edit
def test_an_edit_in_parts_is_the_whole_edit(vanilla, data, kind, number):
    """No step is taken; what is edited is the model itself, whose original weights count as gone."""
    before, edited, small = (
        weights(run(vanilla, data, method, engine, lora=None)[0])
        for method, engine in ((Nothing(), WHOLE), (make(kind, number), WHOLE), (make(kind, number), PARTS))
    )
    assert (edited - before).norm() > 1e-3 * before.norm()
    assert (small - edited).norm() < 1e-2 * (edited - before).norm()


@pytest.mark.extended
@every_edit
@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_an_edit_in_bf16_is_finite(vanilla, data, kind, number, precision):
    module, watch = run(vanilla, data, make(kind, number), lora=None, precision=precision)
    assert weights(module).isfinite().all() and watch.terms == [] and module.mllm.moved


class Nothing(Method):
    """Leaves everything as it is."""

    needs = ()
    takes_steps = False
