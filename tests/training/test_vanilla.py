"""A vanilla model that is made on demand."""

import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from viker_lightning.errors import UserError
from viker_lightning.training import vanilla


def test_a_stopped_vanilla_run_goes_on(tmp_path, monkeypatch, capsys):
    """The second time it is asked for, what the first had learned is still there, and the run is told so."""
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path))
    (tmp_path / "vanilla.yaml").write_text("")
    data = SimpleNamespace(everybody=lambda: "somebody", vanilla_options=lambda: [])
    of_the_method = ("WANDB_JOB_TYPE", "WANDB_DATA_DIR", "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_RUN_ID", "WANDB_TAGS")
    of_the_method += ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "SLURM_NTASKS", "RANK")
    of_both = ("WANDB_API_KEY", "WANDB_MODE")
    for name in of_the_method + of_both:
        monkeypatch.setenv(name, "offline")
    seen = []

    def fit(command, environment):
        (where,) = (a.split("=")[1] for a in command if a.startswith("--trainer.default_root_dir"))
        checkpoint = vanilla.Path(where) / "checkpoints/last.ckpt"
        seen.append(checkpoint.exists())
        assert "--ckpt_path=last" in command
        assert not set(of_the_method) & set(environment), "W&B does not file it as the run that asks for it"
        assert set(of_both) <= set(environment)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        save_file({"weight": torch.zeros(1)}, checkpoint)
        (checkpoint.parents[1] / "model").mkdir(exist_ok=True)
        if len(seen) == 2:
            (checkpoint.parents[1] / "results.json").write_text("{}")
        return -9 if len(seen) == 1 else 0

    monkeypatch.setattr(vanilla, "call_child", fit)
    with pytest.raises(UserError, match="exit code -9"):
        vanilla.vanilla_model(str(tmp_path / "vanilla.yaml"), data)
    assert vanilla.vanilla_model(str(tmp_path / "vanilla.yaml"), data).name == "model"
    assert seen == [False, True]
    run = tmp_path / "vanilla" / next(path.name for path in (tmp_path / "vanilla").iterdir() if path.is_dir())
    (run / "results.json").unlink()
    os.truncate(run / "checkpoints/last.ckpt", 50)
    with pytest.raises(UserError, match="failed with exit code 0"):
        vanilla.vanilla_model(str(tmp_path / "vanilla.yaml"), data)
    assert seen == [False, True, False], "begun anew"
    assert f"{run}/checkpoints/last.ckpt is damaged (" in capsys.readouterr().out


def test_damaged_vanilla_weights_are_made_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path))
    (tmp_path / "vanilla.yaml").write_text("")
    data = SimpleNamespace(everybody=lambda: "somebody", vanilla_options=lambda: [])
    runs = []

    def fit(command, environment):
        (where,) = (vanilla.Path(a.split("=")[1]) for a in command if a.startswith("--trainer.default_root_dir"))
        assert not (where / "results.json").exists(), "a finished run would have nothing to do"
        (where / "model").mkdir(parents=True)
        for name in ("model/config.json", "model/model.bin", "results.json"):
            (where / name).write_text("{}")
        runs.append(where)
        return 0

    monkeypatch.setattr(vanilla, "call_child", fit)
    folder = vanilla.vanilla_model(str(tmp_path / "vanilla.yaml"), data)
    assert vanilla.vanilla_model(str(tmp_path / "vanilla.yaml"), data) == folder and len(runs) == 1
    for damage in (lambda file: file.write_text("{"), vanilla.Path.unlink, lambda file: vanilla.shutil.rmtree(folder)):
        damage(folder / "model.bin")
        capsys.readouterr()
        assert vanilla.vanilla_model(str(tmp_path / "vanilla.yaml"), data) == folder
        assert (folder / "model.bin").read_text() == "{}"
        assert f"{folder.parent} is damaged (" in capsys.readouterr().out.splitlines()[0]
    assert len(runs) == 4


def test_what_an_unlearning_run_has_left_is_merged_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path / "cache"))
    run, written = tmp_path / "run", []
    (run / "adapter").mkdir(parents=True)
    (run / "adapter/adapter_model.safetensors").write_text("1")

    def merge(adapter, folder, **options):
        written.append((adapter, options))
        folder.mkdir(exist_ok=True)
        for name in ("config.json", "share_kept.txt"):
            (folder / name).write_text("{}")

    monkeypatch.setattr(vanilla, "write_merged", merge)
    with pytest.raises(UserError, match="this run is not finished"):
        vanilla.unlearned_model(str(run))
    (run / "results.json").write_text("{}")
    merged = vanilla.unlearned_model(str(run), trust_remote_code=True)
    assert vanilla.Path(merged).parent == tmp_path / "cache/merged"
    assert written == [(run / "adapter", {"trust_remote_code": True, "family": None})]
    assert "adapter: this adapter is added to its model (once)" in capsys.readouterr().out
    assert vanilla.unlearned_model(str(run / "adapter")) == merged == vanilla.unlearned_model(str(run))
    assert len(written) == 1 and not capsys.readouterr().out
    (vanilla.Path(merged) / "config.json").write_text("damaged")
    assert vanilla.unlearned_model(str(run)) == merged and len(written) == 2
    (run / "adapter/adapter_model.safetensors").write_text("2")
    assert vanilla.unlearned_model(str(run)) != merged, "another adapter"
    (run / "merged").mkdir()
    assert vanilla.unlearned_model(str(run)) == str(run / "merged")


def test_other_models_are_left_as_they_are(tmp_path):
    (tmp_path / "run/model").mkdir(parents=True)
    (tmp_path / "run/adapter").mkdir()
    for given in ("configs/mini/vanilla.yaml", "owner/name", str(tmp_path / "run"), str(tmp_path / "run/model")):
        assert vanilla.unlearned_model(given) == given
