"""What a run left behind."""

from pathlib import Path

import pytest

from viker_lightning.errors import UserError
from viker_lightning.models import Weights
from viker_lightning.training.finished import FinishedRun, unlearned_model


def test_what_an_unlearning_run_has_left_is_merged_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path / "cache"))
    run, written = tmp_path / "run", []
    (run / "adapter").mkdir(parents=True)
    (run / "adapter/adapter_model.safetensors").write_text("1")

    def merge(adapter, folder, weights):
        written.append((adapter, weights))
        folder.mkdir(exist_ok=True)
        for name in ("config.json", "share_kept.txt"):
            (folder / name).write_text("{}")

    monkeypatch.setattr("viker_lightning.training.finished.write_merged", merge)
    with pytest.raises(UserError, match="this run is not finished"):
        unlearned_model(str(run))
    (run / "results.json").write_text("{}")
    merged = unlearned_model(str(run), Weights("bfloat16", None, "v1", trust_remote_code=True))
    assert Path(merged).parent == tmp_path / "cache/merged"
    assert written == [(run / "adapter", Weights(trust_remote_code=True))]
    assert "adapter: this adapter is added to its model (once)" in capsys.readouterr().out
    assert unlearned_model(str(run / "adapter")) == merged == unlearned_model(str(run))
    assert len(written) == 1 and not capsys.readouterr().out
    (Path(merged) / "config.json").write_text("damaged")
    assert unlearned_model(str(run)) == merged and len(written) == 2
    (run / "adapter/adapter_model.safetensors").write_text("2")
    assert unlearned_model(str(run)) != merged, "another adapter"
    (run / "merged").mkdir()
    assert unlearned_model(str(run)) == str(run / "merged")


def test_other_models_are_left_as_they_are(tmp_path):
    (tmp_path / "run/model").mkdir(parents=True)
    (tmp_path / "run/adapter").mkdir()
    for given in ("configs/mini/vanilla.yaml", "owner/name", str(tmp_path / "run"), str(tmp_path / "run/model")):
        assert unlearned_model(given) == given


@pytest.mark.parametrize("inside", ["", "adapter", "model", "merged"])
def test_a_run_that_is_not_finished_is_no_other_model(tmp_path, inside):
    """Nor are its weights, whichever of them are named."""
    (tmp_path / "merged").mkdir()
    assert FinishedRun.holding(str(tmp_path / "merged")) is None
    for name in ("config.yaml", "provenance.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="this run is not finished"):
        FinishedRun.holding(str(tmp_path / inside))
