"""``python -m viker_lightning export RUN``: a finished run's weights for plain transformers, or its questions."""

import argparse
import logging
from pathlib import Path

from viker_lightning.attacks.lmms_tasks import write_tasks
from viker_lightning.errors import UserError, say
from viker_lightning.models import MLLM, Weights, load_merged, write_language_model, write_merged
from viker_lightning.models.families import import_family
from viker_lightning.models.instruction import saved_instruction
from viker_lightning.reporting import write_cards
from viker_lightning.storage.hub import check_model_name, push_model
from viker_lightning.storage.runs import names
from viker_lightning.terminal.failures import ending_in_one_line
from viker_lightning.training.finished import FinishedRun

log = logging.getLogger(__name__)


def export(run: Path, weights: Weights = Weights(), base: str | None = None) -> Path:
    """Writes ``<run>/merged/``: the model with its adapter added, the processor and a model card; returns this folder.

    ``base`` is the vanilla model, where it is no longer where the run found it.
    """
    finished = FinishedRun.open(run)
    if not (run / names.ADAPTER).is_dir():
        raise UserError(f"{run}: no adapter/, so there is nothing to merge; model/ holds full weights already")
    write_merged(run / names.ADAPTER, run / names.MERGED, finished.at_base(weights, base, "--base"), base)
    write_cards(run, finished.results)
    return run / names.MERGED


def export_language_model(run: Path, weights: Weights = Weights(), base: str | None = None) -> Path:
    """Writes ``<run>/language_model/``: the language model with its tokenizer, without eyes; returns this folder."""
    of_base = FinishedRun.open(run).at_base(weights, base, "--base")
    if (run / names.MODEL).is_dir():
        mllm = MLLM.load(run, weights)
    else:
        mllm = load_merged(run / names.ADAPTER, of_base, base)
    write_language_model(mllm, run / names.LANGUAGE_MODEL)
    return run / names.LANGUAGE_MODEL


def export_tasks(run: Path) -> Path:
    """Writes ``<run>/lmms_eval/``: what it was asked, and attacks that only ask, for lmms-eval; returns this folder."""
    finished = FinishedRun.open(run)
    finished.check_protocol()
    write_tasks(finished.data(), run / names.LMMS_EVAL, finished.option("evaluation.max_new_tokens", 50))
    return run / names.LMMS_EVAL


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; errors a user can fix end in one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m viker_lightning export", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    alone = "write its language model alone, to language_model/, as a causal language model that sees no images"
    parser.add_argument("--language_model", action="store_true", help=alone)
    asked = "write its questions, and attacks that only ask, as tasks for that program, to lmms_eval/; no weights"
    parser.add_argument("--tasks", choices=["lmms-eval"], help=asked)
    parser.add_argument("--base", help="the vanilla model, where it is no longer where the run found it")
    types = ("float32", "bfloat16", "float16")
    said = "of the weights written; the smaller types may round a small change away, which is then said"
    parser.add_argument("--dtype", default="float32", choices=types, help=said)
    trusted = "let code that comes with the vanilla model run, if the run did"
    parser.add_argument("--trust_remote_code", action="store_true", help=trusted)
    of_family = "class path of the vanilla model's family, if the run had model.family"
    parser.add_argument("--family", help=of_family)
    pushed = "upload it, with its card, to this model repository on the hub, made private if it is not there yet"
    parser.add_argument("--push", metavar="OWNER/NAME", help=pushed)
    given = parser.parse_args(arguments)
    with ending_in_one_line():
        if given.push is not None:
            check_model_name(given.push)
            if given.tasks:
                raise UserError("--push: found with --tasks, which are rows and photos of people; push weights alone")
            if given.language_model:
                raise UserError("--push: found with --language_model, which has no card; push the whole model")
        if given.tasks:
            if given.language_model:
                raise UserError("--tasks: found with --language_model; give one command for each")
            say(export_tasks(given.run))
            return
        family = import_family(given.family)
        weights = Weights(given.dtype, trust_remote_code=given.trust_remote_code, family=family)
        write = export_language_model if given.language_model else export
        folder = write(given.run, weights, given.base)
        say(folder)
        if saved_instruction(folder):
            log.warning("%s: other programs do not read instruction.json, and without it nothing is forgotten", folder)
        if given.push is not None:
            say(push_model(folder, given.push))


if __name__ == "__main__":
    main()
