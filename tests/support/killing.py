"""Runs the command line in a forked process that can be killed for good."""

import json
import os
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from support.forked import ended, start
from viker_lightning.cli.main import main
from viker_lightning.training import Unlearn

OPTIONS = [
    *("--data.root=mini/ci", "--data.max_people=1", "--data.batch_size=24", "--data.questions_per_image=6"),
    *("--data.splits=[forget,retain]", "--gate.knowledge=0", "--gate.follows_image=0", "--gate.follows_text=1"),
    *("--trainer.logger=false", "--trainer.enable_progress_bar=false", "--model.lora.dropout=0.1"),
    "--evaluation.max_new_tokens=3",
    *("--checkpoint.every_n_train_steps=2", "--evaluation.every_n_epochs=1", "--evaluation.coherence=false"),
]


def run(arguments, output, prepare=lambda: None, after=None, number=signal.SIGKILL):
    """Runs ``main(arguments)`` in a process of its own.

    Args:
        arguments: of the command line.
        output: file for what it says.
        prepare: called in that process first.
        after: seconds after which it gets the signal; never by default.
        number: the signal.

    Returns:
        What ``os.waitpid`` says: the exit code, or minus the signal that killed it.
    """
    Path(output).unlink(missing_ok=True)
    pid = start(lambda: (prepare(), main(arguments)), output)
    end = time.monotonic() + after if after is not None else None
    while (code := ended(pid)) is None:
        if end is not None and time.monotonic() > end:
            os.kill(pid, number)
            end = None
        time.sleep(0.01)
    return code


def dies():
    """What a killed process does: nothing more."""
    os.kill(os.getpid(), signal.SIGKILL)


def command(folder, base, *options, method="npo"):
    """A run of a method, ``viker-full`` being without LoRA."""
    name, _, full = method.partition("-")
    fixed = [f"--config=configs/mini/{name}.yaml", f"--model.vanilla={base}", *OPTIONS]
    fixed += ["--model.lora=null"] if full else []
    return ["fit", *fixed, f"--trainer.default_root_dir={folder}", "--trainer.max_steps=8", *options]


def trained(folder):
    """The adapter, or the whole model without LoRA."""
    adapter = folder / "adapter/adapter_model.safetensors"
    return load_file(adapter if adapter.is_file() else folder / "model/model.safetensors")


def results(folder):
    return json.loads((folder / "results.json").read_text())


def same(one, two):
    """The same weights to the last bit, the same measurements, and a report of the same tokens."""
    first, second = trained(one), trained(two)
    assert set(first) == set(second)
    assert all(torch.equal(second[name], weight) for name, weight in first.items())
    assert results(one) == results(two)
    keys = [pq.read_table(f / "predictions.parquet").select(["when", "split", "person", "number"]) for f in (one, two)]
    assert keys[0].to_pylist() == keys[1].to_pylist()
    assert (one / "report.html").is_file() and (two / "report.html").is_file()
    tokens = [(f / "key_tokens.json").read_text() if (f / "key_tokens.json").is_file() else None for f in (one, two)]
    assert tokens[0] == tokens[1]
    assert not list(two.rglob(".*.tmp"))


def in_step(number):
    """Dies in the middle of a step: the gradient is there, the weights have not moved."""

    def step(self, *args, **kwargs):
        if self.global_step == number:
            dies()

    return lambda: setattr(Unlearn, "on_before_optimizer_step", step)


def stand_in_repository(monkeypatch):
    """Configs name other configs relative to the repository."""
    monkeypatch.chdir(Path(__file__).parents[2])


def slurm_task():
    """What a job's only task finds in its environment."""
    task = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "unlearn", "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "1"}
    task |= {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0"}
    return task | {"SLURM_LOCALID": "0"}
