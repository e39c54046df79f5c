"""A run that breaks its model stops, says at which number, and keeps the last adapter that was good."""

import json
import re
import weakref
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch._subclasses.fake_tensor import FakeTensorMode

from support.commands import OPEN_GATE
from viker_lightning.cli.main import main
from viker_lightning.errors import UserError
from viker_lightning.models import write_merged
from viker_lightning.storage.runs import set_aside
from viker_lightning.training import Unlearn
from viker_lightning.training.callbacks import CollapseGuard, Evaluation, Selection

ROOT = Path(__file__).parents[3]
NOT_BEFORE = "--evaluation.before=false"
"""Nothing is asked of what the model answered before training."""


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


def ascend(base_folder, run, *options):
    """Runs gradient ascent and returns the run folder."""
    main(
        [
            *("fit", "--config=configs/mini/gradient_ascent.yaml", f"--model.vanilla={base_folder}"),
            *("--data.root=mini/ci", "--data.max_people=1", "--data.splits=[forget,retain]"),
            *OPEN_GATE,
            *("--evaluation.coherence=false", "--evaluation.max_new_tokens=3"),
            *("--trainer.logger=false", "--trainer.enable_progress_bar=false"),
            *(f"--trainer.default_root_dir={run}", "--guard.every_n_steps=2", *options),
        ]
    )
    return run


@pytest.fixture
def fit(base_folder, tmp_path):
    """:func:`ascend` in a folder of that name."""
    return lambda name, *options: ascend(base_folder, tmp_path / name, *options)


@pytest.fixture(scope="module")
def good(base_folder, tmp_path_factory):
    """A run of the two steps before anything goes wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return ascend(base_folder, tmp_path_factory.mktemp("good") / "run", "--trainer.max_steps=2")


def same_adapter(one, two):
    first, second = (load_file(run / "adapter/adapter_model.safetensors") for run in (one, two))
    return all(torch.equal(second[name], weight) for name, weight in first.items())


def results(run):
    return json.loads((run / "results.json").read_text())


def not_finite(monkeypatch, step, kind):
    """Makes the loss, or only its gradient, nan at a step."""
    loss_terms = Unlearn.loss_terms

    def broken(self, *args):
        terms = loss_terms(self, *args)
        if self.global_step == step:
            weight = next(p for p in self.parameters() if p.requires_grad)
            nothing = (weight.sum() * 0).sqrt()  # its gradient is infinity times zero
            terms["loss"] = terms["loss"] + (nothing if kind == "gradient" else float("nan"))
        return terms

    monkeypatch.setattr(Unlearn, "loss_terms", broken)


@pytest.mark.parametrize(("kind", "named"), [("loss", "the loss is nan"), ("gradient", "gradient is nan")])
def test_what_is_not_finite_stops_the_run(fit, good, monkeypatch, caplog, kind, named):
    not_finite(monkeypatch, 3, kind)
    run = fit("run", "--trainer.max_steps=9")
    stopped = results(run)["stopped"]
    assert named in stopped["why"] and "step 4" in stopped["why"]
    assert stopped["good_step"] == 2 and stopped["step"] == 4 == results(run)["steps"]
    assert same_adapter(good, run)
    assert results(run)["after"] == results(good)["after"]
    assert any(named in record.getMessage() and "step 2" in record.getMessage() for record in caplog.records)
    caplog.set_level("INFO")
    caplog.clear()
    fit("run", "--trainer.max_steps=9", "--ckpt_path=last")
    assert "is finished" in caplog.text and named in caplog.text
    assert "lower model.lr" in caplog.text and "raise trainer.max_steps" not in caplog.text
    set_aside(run)
    assert "an earlier run (stopped by the guard) is now in earlier-1" in caplog.text
    assert "--ckpt_path last would have" not in caplog.text


@pytest.mark.extended
def test_killed_after_the_stop(fit, monkeypatch):
    """A run that is killed in the evaluation after its stop goes on with that evaluation, not with training."""
    not_finite(monkeypatch, 3, "loss")
    whole = fit("whole", "--trainer.max_steps=9")
    evaluate = Evaluation.evaluate

    def killed(self, trainer, pl_module, when):
        if when == "after":
            raise SystemExit(137)
        return evaluate(self, trainer, pl_module, when)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Evaluation, "evaluate", killed)
        fit("run", "--trainer.max_steps=9")
    monkeypatch.setattr(Unlearn, "training_step", lambda *args: pytest.fail("it trains"))
    run = fit("run", "--trainer.max_steps=9", "--ckpt_path=last")
    assert same_adapter(whole, run) and results(whole) == results(run)


def test_nothing_good_is_an_error(fit, monkeypatch, tmp_path):
    not_finite(monkeypatch, 1, "gradient")
    with pytest.raises(SystemExit) as stop:
        fit("run", "--trainer.max_steps=9")
    assert re.search(r"step 2: the norm of the gradient is nan.*model\.lr", str(stop.value.code))
    assert not (tmp_path / "run/results.json").exists()


@pytest.mark.extended
def test_bounds_on_retained_people(fit, tmp_path):
    with pytest.raises(SystemExit) as stop:
        fit("run", "--trainer.max_steps=9", "--guard.max_retain_loss=0.1")
    said = re.search(r"before training the retain loss is ([\d.]+), over its bound 0.1", stop.value.code)
    assert said, stop.value.code
    bound = float(said[1]) + 0.1
    run = fit("run", "--trainer.max_steps=30", NOT_BEFORE, f"--guard.max_retain_loss={bound}", "--model.lr=5e-4")
    stopped = results(run)["stopped"]
    assert "retain loss" in stopped["why"] and f"bound {bound:.4g}" in stopped["why"]
    assert 0 < stopped["good_step"] == stopped["step"] - 2 < 28
    good = fit("good", f"--trainer.max_steps={stopped['good_step']}", "--model.lr=5e-4", NOT_BEFORE)
    assert same_adapter(good, run)
    with pytest.raises(SystemExit, match="repetition"):
        fit("loops", "--trainer.max_steps=2", "--guard.max_repetition=-1")


@pytest.mark.extended
def test_selection_ends_with_the_chosen_adapter(fit, tmp_path):
    options = ("--trainer.max_epochs=3", "--trainer.max_steps=-1", "--evaluation.every_n_epochs=1", "--model.lr=3e-3")
    rule = ("--evaluation.selection.rule=lowest_forget_at_retain", "--evaluation.selection.by=answer_probability")
    plain = fit("plain", *options)
    last = results(plain)
    retain = [last[moment]["retain"]["answer_probability"] for moment in ("epoch 1", "epoch 2", "after")]
    assert sorted(retain, reverse=True) == retain, "ascent lowers both, so that the rule has something to choose"
    bound = (retain[0] + retain[1]) / 2
    run = fit("run", *options, *rule, f"--evaluation.selection.min_retain={bound}")
    chosen = results(run)
    assert chosen["selection"]["chosen"] == "epoch 1" and chosen["selection"]["met"]
    assert chosen["after"] == last["epoch 1"] and chosen["last"] == last["after"]
    first = fit("first", "--trainer.max_epochs=1", "--trainer.max_steps=-1", "--model.lr=3e-3", NOT_BEFORE)
    assert same_adapter(first, run) and not same_adapter(plain, run)
    recorded = json.loads((run / "provenance.json").read_text())["selection"]
    assert recorded == {"rule": "lowest_forget_at_retain", "by": "answer_probability", "min_retain": bound}
    with pytest.raises(SystemExit, match="every_n_epochs"):
        fit("wrong", "--trainer.max_steps=1", *rule)


@pytest.mark.extended
def test_a_run_stops_where_enough_is_forgotten(fit):
    options = ("--trainer.max_epochs=3", "--trainer.max_steps=-1", "--evaluation.every_n_epochs=1", "--model.lr=3e-3")
    by = "--evaluation.selection.by=answer_probability"
    plain = results(fit("plain", *options))
    first, second = (plain[f"epoch {n}"] for n in (1, 2))
    assert second["forget"]["answer_probability"] < first["forget"]["answer_probability"]
    at = f"--evaluation.stop={second['forget']['answer_probability']}"
    run = results(fit("run", *options, by, at))
    assert run["epochs"] == 2 and "epoch 3" not in run and run["after"] == run["epoch 2"] == second
    bound = second["retain"]["answer_probability"] + 1e-6
    kept = results(fit("kept", *options, by, at, f"--evaluation.selection.min_retain={bound}"))
    assert kept["epochs"] == 3 and kept["after"] == plain["after"], "too little is kept to stop"
    for stop, named in (
        ("0.1", "no unlearning run that is evaluated in between"),
        ("gold", "no gold model's keyword_match"),
    ):
        every = [] if stop != "gold" else ["--evaluation.every_n_epochs=1"]
        with pytest.raises(SystemExit, match=named):
            fit("wrong", "--trainer.max_steps=1", f"--evaluation.stop={stop}", *every)


def same_weights(one, two):
    first, second = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    return first.keys() == second.keys() and all(torch.equal(second[name], w) for name, w in first.items())


FIRST = ("--trainer.max_epochs=2", "--trainer.max_steps=-1", "--evaluation.every_n_epochs=1", "--model.lr=3e-3")
FIRST += ("--evaluation.selection.rule=lowest_forget_at_retain", "--evaluation.selection.by=answer_probability")
FIRST += (
    "--evaluation.before=false",
    "--evaluation.selection.min_retain=1",
)  # nobody's: the first epoch, which keeps most, is chosen


def test_the_chosen_adapter_is_merged(fit):
    run = fit("run", *FIRST, "--model.save_merged=true")
    assert results(run)["selection"]["chosen"] == "epoch 1"
    write_merged(run / "adapter", run / "wanted")
    assert same_weights(run / "merged", run / "wanted")
    kept = run / "checkpoints/epoch-1"
    assert same_adapter(kept, run) and [folder.name for folder in kept.iterdir()] == ["adapter"]
    assert (run / "merged/README.md").is_file()


@pytest.mark.extended
def test_full_weights_are_chosen(fit):
    run = fit("run", *FIRST, "--model.lora=null")
    assert results(run)["selection"]["chosen"] == "epoch 1"
    kept = run / "checkpoints/epoch-1"
    assert same_weights(kept / "model", run / "model") and [folder.name for folder in kept.iterdir()] == ["model"]
    first = fit(
        "first", "--trainer.max_epochs=1", "--trainer.max_steps=-1", "--model.lr=3e-3", "--model.lora=null", NOT_BEFORE
    )
    assert same_weights(first / "model", run / "model")


def test_the_rule():
    def of(**values):
        return {moment: {"forget": {"rouge_l": f}, "retain": {"rouge_l": r}} for moment, (f, r) in values.items()}

    rule = Selection("lowest_forget_at_retain", "rouge_l", 0.5)
    assert rule.choose(of(a=(0.3, 0.9), b=(0.1, 0.6), after=(0.0, 0.4))) == ("b", True)
    assert rule.choose(of(a=(0.1, 0.9), b=(0.1, 0.6))) == ("b", True), "the later of equals"
    assert rule.choose(of(a=(0.3, 0.2), b=(0.1, 0.1))) == ("a", False)
    with pytest.raises(UserError, match="'bleu' was not measured on forget; measured on both: rouge_l"):
        Selection("lowest_forget_at_retain", "bleu").choose(of(a=(0.3, 0.2)))


def test_weights_in_parts_are_put_together_one_at_a_time(monkeypatch):
    """A GPU that holds a part of each weight has no room for all of them whole."""
    together = weakref.WeakSet()

    class Whole:
        def cpu(self):
            return "on the CPU"

    def gather_as(here, shard):
        assert (here, shard) in (("part a", "a"), ("part b", "b")) and not together
        found = Whole()
        together.add(found)
        return found

    monkeypatch.setattr(import_module("viker_lightning.training.callbacks.collapse_guard"), "gather_as", gather_as)
    guard = CollapseGuard()
    guard._good = {"a": "part a", "b": "part b", "c": (here := torch.ones(2))}
    guard._shards = {"a": "a", "b": "b"}
    saved = guard.state_dict()["weights"]
    assert saved["a"] == saved["b"] == "on the CPU" and saved["c"] is here


def test_the_good_weights_are_in_main_memory():
    """A second model would not fit on the GPU that one is trained on in full."""
    guard = CollapseGuard()
    with FakeTensorMode():  # as if there were a GPU
        guard._keep("weight", torch.nn.Parameter(torch.ones(3, device="cuda")))
        assert guard._good["weight"].device.type == "cpu"
    guard = CollapseGuard()
    weight = torch.nn.Parameter(torch.ones(3))
    guard._keep("weight", weight)
    place = guard._good["weight"].data_ptr()
    with torch.no_grad():
        weight.add_(1)
    assert guard._good["weight"].tolist() == [1, 1, 1]
    guard._keep("weight", weight)
    assert guard._good["weight"].tolist() == [2, 2, 2] and guard._good["weight"].data_ptr() == place
