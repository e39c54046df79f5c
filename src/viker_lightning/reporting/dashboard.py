"""``python -m viker_lightning.reporting.dashboard --entity E --project P``: a W&B workspace and report of all runs.

Both are built from code with wandb-workspaces (extra ``dashboards``), and need runs that were logged online or synced.
Runs of one table, method and forget ratio are one line or bar: a table is a group, a method a job type.
"""

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from viker_lightning.errors import UserError
from viker_lightning.metrics import FORGOTTEN, KNOWLEDGE, NUMBERS, SPLITS
from viker_lightning.storage.secrets import hide

from .history import CURVES, WEIGHTS
from .run_scores import numbers_of

STEP, PROJECT = "trainer/global_step", "viker-lightning"
RATIO = "data.init_args.forget"
"""Runs of one method are averaged over seeds, never over forget ratios."""
KNOWN = [one.name for one in NUMBERS if "board" in one.shown and one.good == "by split"]
FLUENT = [one.name for one in NUMBERS if "board" in one.shown and one.good != "by split"]
PINNED = [*((split, KNOWLEDGE[0]) for split in ("test", "retain", "real")), ("test", "coherence")]
ABOUT = {
    "Forgetting": "What is still known of the people to forget, as trained (forget), and on other photos and in other "
    "words (test). Bars are values after unlearning, lines the way there. Near gold (★) is good, not lower.",
    "Retention": "What is still known of the people to keep (retain), and of known people no loss ever sees (real). "
    "High is good. The best place of the trade-off is beside gold.",
    "Coherence": "How answers about forgotten people are put: coherent, in the words around the private ones, without "
    "loops, and near a model that never saw these people (gold).",
    "Training": "Terms of the loss, and the gradient weight of ViKeR's regulariser on key tokens and on the others.",
    "Probe questions": "The same questions about the same people in every run, before and after. Forget answers are "
    "coloured by key-token entropy; point at a token to see what the ideal distribution would say.",
}
"""Sections, in order, and what they show."""


def modules() -> tuple[ModuleType, ModuleType]:
    """``wandb_workspaces.workspaces`` and ``wandb_workspaces.reports.v2``."""
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ModuleNotFoundError as error:
        raise UserError(
            f"a W&B workspace needs wandb-workspaces ({error}); pip install -e '.[dashboards]' in the repository"
        ) from error
    return workspaces, reports


def panels(section: str) -> list[Any]:
    """The panels of a section of :data:`ABOUT`, from left to right."""
    _, wr = modules()
    if section == "Forgetting":
        return _measured(FORGOTTEN, KNOWN)
    if section == "Retention":
        ends = {
            axis: wr.SummaryMetric(f"after/{split}/keyword_match") for axis, split in (("x", "test"), ("y", "retain"))
        }
        return [
            wr.ScatterPlot(title="What is forgotten against what is kept", **ends),
            *_measured(("retain", "real"), KNOWN),
        ]
    if section == "Coherence":
        return _measured(("test",), FLUENT)
    if section == "Training":
        terms = {"loss": "loss"} | CURVES
        curves = [wr.LinePlot(title=label, x=STEP, y=[f"train/{term}"]) for term, label in terms.items()]
        return [
            wr.LinePlot(title="gradient weight on key and on other tokens", x=STEP, y=list(WEIGHTS.values())),
            *curves,
        ]
    wide, tall = wr.Layout(w=24, h=16), wr.Layout(w=24, h=10)
    return [
        wr.WeavePanelSummaryTable(table_name="probes/answers", layout=wide),
        wr.MediaBrowser(title="Key tokens", media_keys=["probes/key_tokens"], num_columns=1, layout=tall),
    ]


def _measured(splits: Sequence[str], scores: Sequence[str]) -> list[Any]:
    """For each number, bars of its values after unlearning, and lines over the steps it was measured at."""
    _, wr = modules()
    found, numbers = [], numbers_of()
    for split, score in ((split, score) for split in splits for score in scores):
        title = f"{split}: {numbers[score].title} {numbers[score].arrow(split)}"
        found += [
            wr.BarPlot(title=title, metrics=[f"after/{split}/{score}"]),
            wr.LinePlot(title=f"{title}, over steps", x=STEP, y=[f"{split}/{score}"]),
        ]
    return found


def _of(group: str | None) -> str:
    """A filter of runs, as wandb-workspaces writes it."""
    return f"Metric('Group') == {group!r}" if group else ""


def workspace(entity: str, project: str, group: str | None = None) -> Any:
    """A workspace with a section for each part of :data:`ABOUT`; ``.save()`` sends it, as a new view each time."""
    ws, _ = modules()
    settings = ws.RunsetSettings(
        groupby=[ws.Metric("Group"), ws.Metric("JobType"), ws.Config(RATIO)],
        filters=_of(group),
        pinned_columns=[f"summary:after/{split}/{score}" for split, score in PINNED],
    )
    sections = [ws.Section(name=name, panels=panels(name), is_open=True) for name in ABOUT]
    name = f"Unlearning: {group}" if group else "Unlearning"
    return ws.Workspace(entity=entity, project=project, name=name, sections=sections, runset_settings=settings)


def report(entity: str, project: str, group: str | None = None) -> Any:
    """The same as a report with a sentence for each section; arguments and errors as for :func:`workspace`."""
    _, wr = modules()
    runs = {
        "entity": entity,
        "project": project,
        "name": group or "all runs",
        "groupby": ["Group", "JobType", f"config.{RATIO}"],
    }
    splits = [f"{split}: {meaning}" for split, meaning in SPLITS.items()]
    blocks = [
        wr.TableOfContents(),
        wr.P("What a model was made to forget, and what it kept."),
        wr.UnorderedList(splits),
    ]
    for name, about in ABOUT.items():
        blocks += [
            wr.H2(name),
            wr.P(about),
            wr.PanelGrid(runsets=[wr.Runset(**runs, filters=_of(group))], panels=panels(name)),
        ]
    title = f"Unlearning: {group}" if group else "Unlearning"
    return wr.Report(entity=entity, project=project, title=title, blocks=blocks, width="fluid")


def main(args: Sequence[str] | None = None) -> None:
    """Builds and saves both and prints their addresses; errors end in one line and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m viker_lightning.reporting.dashboard",
        description="Makes a W&B workspace and a W&B report of the runs of a project. Needs a W&B login.",
    )
    parser.add_argument("--entity", required=True, help="W&B user or team")
    parser.add_argument("--project", default=PROJECT, help=f"W&B project (default: {PROJECT})")
    parser.add_argument("--group", help="only the runs of this group, e.g. mllmu-mini")
    given = vars(parser.parse_args(args))
    try:
        made = [build(**given) for build in (workspace, report)]
        for one in made:
            one.save()
            print(one.url)
    except UserError as error:
        sys.exit(f"error: {error}")
    except Exception as error:  # no login, no such project, no network: the library has an error for each
        reason = hide(" ".join(str(error).split()))
        sys.exit(f"error: W&B did not take it ({reason}); check wandb login, the entity and the project")


if __name__ == "__main__":
    main()
