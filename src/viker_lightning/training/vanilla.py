"""The model an unlearning run begins with, made on demand."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

from filelock import FileLock

from viker_lightning import __version__
from viker_lightning.data.datasets.base import Benchmark
from viker_lightning.data.embedded.embedded_models import EMBEDDED_MODELS
from viker_lightning.errors import UserError, say
from viker_lightning.jobs.children import call_child
from viker_lightning.jobs.processes import by_itself
from viker_lightning.storage.cache import cache_folder, damage, note_checksums, unreadable
from viker_lightning.storage.files import check_folder
from viker_lightning.storage.packaged_configs import config_path
from viker_lightning.storage.runs import last_checkpoint
from viker_lightning.storage.runs.names import MODEL, is_finished, weights_folder

YAML = (".yaml", ".yml")
"""How the name of a config ends."""

EXPECTED = "a config, a model folder or a hub id"
"""What may be given."""

FILED = ("WANDB_JOB_TYPE", "WANDB_DATA_DIR", "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_TAGS")
"""Where W&B files the run that asks for the vanilla model; key, mode and project are for both."""


def check_vanilla(option: str, vanilla: str | None) -> None:
    """Refuses what is neither a YAML of a fine-tuning run nor a folder of weights, before anything is built or moved.

    Args:
        option: whose value it is.
        vanilla: as :func:`vanilla_model` takes it; ``None`` is always good.

    Raises:
        UserError: if it is empty, a YAML that is not there, another file, or could be no path.
    """
    if vanilla is None:
        return
    if not vanilla.strip():
        raise UserError(f"{option}: found nothing, expected {EXPECTED}")
    if not vanilla.endswith(YAML):
        check_folder(option, vanilla)
    elif not os.path.isfile(config_path(vanilla)):  # False for what cannot be a path, too
        found = vanilla if len(vanilla) <= 80 else f"{vanilla[:80]}..."
        raise UserError(f"{option}: {found!r} does not exist; give {EXPECTED}")


def vanilla_model(vanilla: str, data: Benchmark, option: str = "model.vanilla") -> Path | str:
    """The vanilla weights, made first where they are asked for by a YAML.

    Args:
        vanilla: a model folder, run folder or hub id, returned as it is; or the YAML of a fine-tuning run. The run is
            kept in the cache folder under a hash of the YAML and the training data; one that was stopped is
            resumed, one whose weights are damaged is made again.
        data: the data the run is made on.
        option: the option that asks for it, for the message.

    Raises:
        UserError: if the YAML does not exist or the run fails.
    """
    if not vanilla.endswith(YAML):
        return weights_folder(vanilla)
    check_vanilla(option, vanilla)
    config, run = Path(config_path(vanilla)), kept_in(vanilla, data)
    run.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{run}.lock"):
        if is_finished(run) and (why := damage(run / MODEL, "config.json")):
            say(f"{run} is damaged ({why}) and is made again")
            shutil.rmtree(run)
        if not is_finished(run):
            while (last := last_checkpoint(run)) and (why := unreadable(last)):
                say(f"{last} is damaged ({why}); the run goes on without it")
                last.unlink()
            say(f"There is no vanilla model of this data yet: running {config} (once) into {run}")
            command = [sys.executable, "-m", "viker_lightning", "fit", "--config", str(config)]
            command += [*data.vanilla_options(), f"--trainer.default_root_dir={run}", "--ckpt_path=last"]
            environment = {k: v for k, v in by_itself(os.environ).items() if k not in FILED}
            exit_code = call_child(command, environment)
            if exit_code or not is_finished(run):
                raise UserError(f"{config}: the vanilla run failed with exit code {exit_code}; see above")
            note_checksums(run / MODEL)
    return weights_folder(run)


def kept_in(config: str, data: Benchmark) -> Path:
    """Where the vanilla run of a config on some data is kept, or will be."""
    models = "/".join(model.made_of() for model in EMBEDDED_MODELS.values())
    made_of = f"{__version__}/{models}/{data.everybody()}/"
    key = hashlib.sha256(made_of.encode() + Path(config_path(config)).read_bytes()).hexdigest()[:12]
    return cache_folder("vanilla", key)


def check_goes_on(forgotten_by: str, vanilla: str, adapter: str | None) -> None:
    """Makes sure that a run goes on from the model of the run whose people it takes for forgotten.

    If neither its vanilla model nor its adapter lies there, the model may know those people, whom no step asks about.
    """
    run = Path(forgotten_by).resolve()
    begun = [Path(one).resolve() for one in (vanilla, adapter) if one]
    if not any(run in (one, one.parent) for one in begun):
        raise UserError(
            f"data.forgotten_by: found {forgotten_by}, but model.vanilla is {vanilla}, which may still know whom that "
            f"run has forgotten; give {forgotten_by} as both, or set forgotten_by to null"
        )
