"""The W&B workspace and report as code: built without network, never saved here."""

import json
import sys
from importlib import import_module

import pytest

from viker_lightning.reporting import dashboard

GROUPED = ('"group"', "jobType", "data.value.init_args.forget")


@pytest.fixture
def library():
    return pytest.importorskip("wandb_workspaces", reason="wandb-workspaces (extra dashboards) is not installed")


def test_workspace(library):
    made = dashboard.workspace("team", "forgetting", group="main table")
    assert [section.name for section in made.sections] == list(dashboard.ABOUT)
    assert all(section.panels for section in made.sections)
    sent = made._to_model().model_dump_json(by_alias=True, exclude_none=True)  # what save() would send
    for wanted in ("after/test/keyword_match", "retain/keyword_match", "test/coherence", *GROUPED, "main table"):
        assert wanted in sent, wanted
    for wanted in ("train/gradient_weight_key", "train/forget_ce", "probes/answers", "probes/key_tokens"):
        assert wanted in sent, wanted


def test_report(library, monkeypatch):
    """The server alone knows a project's number."""
    interface = import_module("wandb_workspaces.reports.v2.interface")
    monkeypatch.setattr(interface, "_get_api", lambda: None)
    monkeypatch.setattr(interface, "execute_graphql", lambda *asked: {"project": {"internalId": "7"}})
    made = dashboard.report("team", "forgetting")
    sent = json.dumps(made._to_model().model_dump(by_alias=True, mode="json"))
    for name, about in dashboard.ABOUT.items():
        assert name in sent and json.dumps(about)[1:-1] in sent
    for wanted in ("after/forget/keyword_match", "train/gradient_weight_other", "probes/answers", *GROUPED):
        assert wanted in sent, wanted


def test_without_the_extra_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(SystemExit) as stop:
        dashboard.main(["--entity=team"])
    assert "\n" not in stop.value.code and "pip install -e '.[dashboards]'" in stop.value.code


def test_what_wandb_refuses_is_one_line_without_secrets(monkeypatch):
    class Refused:
        def save(self):
            raise RuntimeError("no project\nfor https://me:pa55word9@wandb.example")

    monkeypatch.setattr(dashboard, "workspace", lambda **given: Refused())
    monkeypatch.setattr(dashboard, "report", lambda **given: Refused())
    with pytest.raises(SystemExit) as stop:
        dashboard.main(["--entity=team"])
    assert "no project for" in stop.value.code and "\n" not in stop.value.code and "pa55word9" not in stop.value.code
