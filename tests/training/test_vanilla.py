"""A vanilla model that is made on demand."""

import os
import subprocess
from types import SimpleNamespace

import pytest

from viker_lightning.errors import UserError
from viker_lightning.processes import PARENT
from viker_lightning.training import vanilla


def test_a_stopped_vanilla_run_goes_on(tmp_path, monkeypatch):
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

    def fit(command, **options):
        (where,) = (a.split("=")[1] for a in command if a.startswith("--trainer.default_root_dir"))
        checkpoint = vanilla.Path(where) / "checkpoints/last.ckpt"
        seen.append(checkpoint.exists())
        assert "--ckpt_path=last" in command
        assert options["env"][PARENT] == str(os.getpid()), "it stops if nobody waits any more"
        assert not set(of_the_method) & set(options["env"]), "W&B does not file it as the run that asks for it"
        assert set(of_both) <= set(options["env"])
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.touch()
        (checkpoint.parents[1] / "model").mkdir(exist_ok=True)
        if len(seen) == 2:
            (checkpoint.parents[1] / "results.json").write_text("{}")
        return SimpleNamespace(returncode=-9 if len(seen) == 1 else 0)

    monkeypatch.setattr(subprocess, "run", fit)
    with pytest.raises(UserError, match="exit code -9"):
        vanilla.vanilla_model(str(tmp_path / "vanilla.yaml"), data)
    assert vanilla.vanilla_model(str(tmp_path / "vanilla.yaml"), data).name == "model"
    assert seen == [False, True]


def test_damaged_vanilla_weights_are_made_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path))
    (tmp_path / "vanilla.yaml").write_text("")
    data = SimpleNamespace(everybody=lambda: "somebody", vanilla_options=lambda: [])
    runs = []

    def fit(command, **options):
        (where,) = (vanilla.Path(a.split("=")[1]) for a in command if a.startswith("--trainer.default_root_dir"))
        assert not (where / "results.json").exists(), "a finished run would have nothing to do"
        (where / "model").mkdir(parents=True)
        for name in ("model/config.json", "model/model.bin", "results.json"):
            (where / name).write_text("{}")
        runs.append(where)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", fit)
    folder = vanilla.vanilla_model(str(tmp_path / "vanilla.yaml"), data)
    assert vanilla.vanilla_model(str(tmp_path / "vanilla.yaml"), data) == folder and len(runs) == 1
    for damage in (lambda file: file.write_text("{"), vanilla.Path.unlink, lambda file: vanilla.shutil.rmtree(folder)):
        damage(folder / "model.bin")
        capsys.readouterr()
        assert vanilla.vanilla_model(str(tmp_path / "vanilla.yaml"), data) == folder
        assert (folder / "model.bin").read_text() == "{}"
        assert f"{folder.parent} is damaged (" in capsys.readouterr().out.splitlines()[0]
    assert len(runs) == 4
