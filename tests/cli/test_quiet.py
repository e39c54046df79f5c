"""What a run does not say: warnings that ask nothing of a user."""

import logging
import warnings

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from viker_lightning.metrics.text import _rouge_scorer, rouge_l
from viker_lightning.terminal import quiet


@pytest.fixture
def quietened(monkeypatch):
    """Filters, variables and log levels as a run sets them, for a while."""
    for name, value in quiet.VARIABLES.items():
        monkeypatch.setenv(name, value)
    levels = {name: logging.getLogger(name).level for name in quiet.LIBRARIES}
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        quiet.quieten()
        yield heard
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_a_run_folder_with_files_is_nothing_to_warn_of(tmp_path, quietened):
    (tmp_path / "config.yaml").touch()
    assert CSVLogger(tmp_path, name="", version="").experiment.log_dir
    assert not [str(one.message) for one in quietened]
    warnings.warn("anything else", stacklevel=1)
    assert [str(one.message) for one in quietened] == ["anything else"]


def test_w_b_is_told_nothing_that_nobody_has_set(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(wandb, "termwarn", lambda text, **more: said.append(text))

    def begin(**settings):
        logger = WandbLogger(save_dir=tmp_path, mode="disabled", **settings)
        quiet.leave_out_unset([logger, CSVLogger(tmp_path)])
        assert logger.experiment
        wandb.finish()

    begin()
    assert not said
    begin(anonymous=True)
    assert any("anonymous" in line for line in said), "whoever sets it is told"


def test_scoring_says_nothing(caplog):
    _rouge_scorer.cache_clear()
    with caplog.at_level(logging.DEBUG):
        assert rouge_l("she paints houses", "he painted houses") == pytest.approx(2 / 3)
    assert not caplog.records
