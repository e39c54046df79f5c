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
