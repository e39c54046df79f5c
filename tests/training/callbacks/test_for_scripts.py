"""A Trainer for scripts has what the command has."""

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import CSVLogger

from viker_lightning.errors import UserError
from viker_lightning.training.callbacks import CollapseGuard, Evaluation, KnowledgeGate, trainer
from viker_lightning.training.callbacks.order import LAST, OPTIONS, trainer_defaults


class Mine(Callback):
    """Of a user."""


def kinds(made):
    return [type(callback) for callback in made.callbacks]


def test_it_has_all_that_the_command_has(tmp_path):
    made = trainer(tmp_path / "run", accelerator="cpu", max_steps=3)
    ours = [kind for kind in kinds(made) if kind in (*OPTIONS.values(), *LAST)]
    assert sorted(map(str, ours)) == sorted(map(str, (*OPTIONS.values(), *LAST)))
    assert made.max_steps == 3 and made.default_root_dir == str(tmp_path / "run")
    assert made.gradient_clip_val == trainer_defaults()["gradient_clip_val"] and made.num_sanity_val_steps == 0
    assert isinstance(made.logger, CSVLogger) and made.logger.log_dir.rstrip("/") == str(tmp_path / "run")


def test_what_is_given_takes_the_place_of_the_commands(tmp_path):
    evaluation, guard, mine = Evaluation(max_new_tokens=7), CollapseGuard(every_n_steps=3), Mine()
    options = {"gradient_clip_val": 0.5, "enable_progress_bar": False, "logger": False}
    made = trainer(tmp_path, evaluation, mine, guard, accelerator="cpu", max_steps=1, **options)
    assert kinds(made).count(Evaluation) == kinds(made).count(CollapseGuard) == 1
    assert evaluation in made.callbacks and guard in made.callbacks
    assert made.callbacks.index(mine) < made.callbacks.index(evaluation)
    (gate,) = (one for one in made.callbacks if isinstance(one, KnowledgeGate))
    assert gate.max_new_tokens == 7, "as the command links them"
    assert made.gradient_clip_val == 0.5 and made.loggers == []
    assert not any(isinstance(one, ProgressBar) for one in made.callbacks)


def test_a_gate_of_ones_own(tmp_path):
    gate = KnowledgeGate(knowledge=0.1)
    made = trainer(tmp_path, gate, accelerator="cpu", max_steps=1)
    assert [one for one in made.callbacks if isinstance(one, KnowledgeGate)] == [gate]


def test_two_of_the_commands_are_not_lost_in_silence(tmp_path):
    with pytest.raises(UserError, match=r"^trainer: found several Evaluation, expected one; leave the others out$"):
        trainer(tmp_path, Evaluation(), Evaluation(), accelerator="cpu", max_steps=1)


def test_an_option_that_lightning_has_not_is_an_error(tmp_path):
    with pytest.raises(TypeError, match="max_stepps"):
        trainer(tmp_path, max_stepps=1)
