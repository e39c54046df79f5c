"""Requests one after another, through the command line: a run goes on from what an unlearning run has left."""

import json

import pytest
import torch
from safetensors.torch import load_file

from support.commands import OPEN_GATE, ROOT, here, run  # noqa: F401 - `here` is used by every test of this file
from viker_lightning.cli.main import main
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, load_adapted
from viker_lightning.reporting import write_report
from viker_lightning.storage.runs import read_run
from viker_lightning.training.vanilla import check_goes_on

pytestmark = pytest.mark.extended

FEW = ["--data.root=mini/ci", "--data.max_people=2", "--data.splits=[forget,test,retain]", *OPEN_GATE]


@pytest.fixture(scope="module")
def two(base_folder, tmp_path_factory):
    """A run of one person, and one of another person that goes on from it."""
    folder = tmp_path_factory.mktemp("requests")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        run("fit", "mini/viker", folder / "first", base_folder, "--data.forget=5", "--model.lr=0.02", *FEW)
        more = ["--data.forget=10", f"--data.forgotten_by={folder / 'first'}"]
        run("fit", "mini/viker", folder / "second", folder / "first", *more, *FEW)
    return folder


def test_the_second_run_begins_where_the_first_has_ended(two):
    first, second = read_run(two / "first"), read_run(two / "second")
    (old,), (new,) = second.provenance["data"]["requests"]
    assert first.provenance["data"]["requests"] == [[old]] and old != new
    ended = {(p.split, p.task, p.number, p.person): p for p in first.predictions["after"] if p.person == old}
    begun = {(p.split, p.task, p.number, p.person): p for p in second.predictions["before"] if p.person == old}
    assert ended.keys() == begun.keys() and len(ended) > 3
    for key, p in begun.items():
        assert p.answer == ended[key].answer
        assert p.log_probs == pytest.approx(ended[key].log_probs, abs=1e-4)
    moved = [p.log_probs for p in first.predictions["before"] if p.person == old]
    assert moved != [p.log_probs for p in ended.values()], "the first run has changed something"
    base = second.provenance["base_weights"]
    assert "/merged/" in base and not (two / "first/merged").exists()
    added = load_adapted(two / "first/adapter").model.merge_and_unload().state_dict()
    assert all(torch.allclose(w, added[name], atol=1e-6) for name, w in MLLM.load(base).base.state_dict().items())
    assert load_file(two / "second/adapter/adapter_model.safetensors")


def test_each_request_is_evaluated_by_itself(two):
    first, second = (json.loads((two / name / "results.json").read_text()) for name in ("first", "second"))
    assert "requests" not in first
    (old,), (new,) = (one["people"] for one in second["requests"])
    for moment in ("before", "after"):
        for split in ("forget", "test"):
            parts = [one[moment][split]["keyword_match"] for one in second["requests"]]
            asked = [p for p in read_run(two / "second").predictions[moment] if p.split == split]
            assert {p.person for p in asked} == {old, new}
            assert min(parts) <= second[moment][split]["keyword_match"] <= max(parts)


def test_the_report_has_a_curve_from_request_to_request(two):
    page = write_report(two / "second").read_text()
    assert "From request to request: test: " in page and "after 2</th>" in page and "request 2</th>" in page
    assert "From request to request" not in write_report(two / "first").read_text()


def test_the_gate_asks_about_the_new_person_alone(two, base_folder, tmp_path):
    """The vanilla model knows nobody: the first is not asked about."""
    options = ["--data.forget=10", f"--data.forgotten_by={two / 'first'}"]
    results = run("validate", "mini/viker", tmp_path, base_folder, *options, *FEW)
    assert [one.keys() for one in results["requests"]] == [{"people", "validate"}] * 2
    asked = [p for p in read_run(two / "second").predictions["before"] if p.split == "forget"]
    whole = len({(p.person, p.number) for p in asked if p.task == "generation" and p.private})
    assert 0 < results["knowledge"]["questions"] < whole


def test_a_run_goes_on_from_the_run_that_has_forgotten(two, base_folder):
    """Not from the model before it, which knows the first person, whom no step asks about any more."""
    first = str(two / "first")
    for vanilla, adapter in ((first, None), (f"{first}/adapter", None), (str(base_folder), f"{first}/adapter")):
        check_goes_on(first, vanilla, adapter)
    for vanilla in (str(base_folder), str(two / "second"), "some/hub-id", "configs/mini/vanilla.yaml"):
        with pytest.raises(UserError, match=r"^data.forgotten_by: found .*first, but model.vanilla is .*as both"):
            check_goes_on(first, vanilla, None)


@pytest.mark.parametrize(
    ("command", "option"),
    [("fit", "model.adapter"), ("fit", "data.forgotten_by"), ("fit", "evaluation.gold"), ("check", "model.vanilla")],
)
def test_a_run_does_not_move_away_what_it_reads(finished, tmp_path, monkeypatch, command, option):
    """The very folder, by whatever path, or what lies in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").symlink_to(finished)
    before = sorted(finished.iterdir())
    value = "mine/adapter" if option == "model.adapter" else "mine"
    given = [f"--config={ROOT / 'configs/mini/viker.yaml'}", f"--trainer.default_root_dir={finished}"]
    with pytest.raises(SystemExit, match=f"^error: {option}: {value} lies in this run's own folder"):
        main([command, *given, "--model.vanilla=elsewhere", f"--{option}={value}"])
    assert sorted(finished.iterdir()) == before


def test_whoever_was_forgotten_must_be_in_the_forget_set(two, base_folder, tmp_path):
    with pytest.raises((UserError, SystemExit), match="has forgotten the whole forget set"):
        more = ["--data.forget=5", f"--data.forgotten_by={two / 'first'}"]
        run("fit", "mini/viker", tmp_path, two / "first", *more, *FEW)
