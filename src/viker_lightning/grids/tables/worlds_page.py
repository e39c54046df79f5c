"""What a record of worlds shows: tables over worlds first, then every world; as Markdown and in a terminal."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.table import Table as RichTable

from viker_lightning.metrics import FORGOTTEN
from viker_lightning.metrics.prediction import TEXT
from viker_lightning.reporting.section import APART, Cell, Section, by_importance, markdown, terminal

from .measurements import ending_sections, measured_sections, seconds
from .worlds import differs, statistics_note

Record = Mapping[str, Any]

MAIN = ("keyword_match", "kl_gold", "well_formed")
"""Scores that are shown world by world, and drawn."""

MEASURED = {"distance": "from gold", "floor": "above the floor", "kept": "less vanilla", "value": ""}
"""What a measure is, behind the name of its column."""

BETTER = {"distance": "closer to gold by", "floor": "closer to gold by", "kept": "more kept by", "value": "better by"}
"""What a difference from the reference says, before its number."""


def sections(record: Record) -> list[Section]:
    """The tables of a record: over worlds, differences from the reference, every world."""
    parts = [_means(record), _distances(record), *_differences(record)]
    parts += [_by_world(record, one) for one in main_measures(record)]
    return [part for part in parts if part.rows]


def main_measures(record: Record) -> list[dict[str, Any]]:
    """The measures of :data:`MAIN` scores, as far as there are any values; all where there are none of these."""
    means = record["means"].values()
    every = [m for m in record["measures"] if any(columns[m["column"]]["worlds"] for columns in means)]
    return [one for one in every if one["column"].partition("/")[2] in MAIN] or every


def worlds_markdown(record: Record) -> str:
    """A Markdown page of a record, and of nothing else."""
    scale, worlds, seeds = record["scale"], len(record["worlds"]), record["seeds"]
    settings = [f"- {name}: `{json.dumps(options)}`" for name, options in record["settings"].items()]
    runs = [
        [run["block"], run["row"], str(run["seed"]), run["state"], seconds(run), f"`{run['command']}`"]
        for run in record["runs"]
    ]
    parts: list[Section | str] = [
        f"# {record['title']}",
        f"Scale `{scale}`, {worlds} worlds, {seeds} seed{'s' * (seeds > 1)}. {record['note']}",
        "\n".join(missing_notes(record)),
        *sections(record),
        *measured_sections(record["key_tokens"], record["costs"]),
        *record.get("unmeasured", []),
    ]
    table = Section("Runs", ["world", "row", "seed", "state", "seconds", "command"], runs)
    return markdown(parts + ending_sections(record, table, Section("Settings", note="\n".join(settings))))


def missing_notes(record: Record) -> list[str]:
    """What is not compared, and why; a sentence each."""
    notes = [
        f"{name} is not compared in world{'s' * (len(worlds) > 1)} {', '.join(worlds)}: a run of it, of the reference, "
        "of vanilla or of a gold model is not finished there."
        for name, worlds in record["left_out"].items()
    ]
    if record["not_run"]:
        notes.append(f"Not run yet: {', '.join(record['not_run'])}.")
    return notes + [f"These numbers do not compare: {reason}." for reason in record["warnings"]]


def worlds_summary(record: Record, width: int) -> RichTable:
    """Mean measures over worlds, for a terminal, with the columns there is room for, one at least."""
    measures = record["measures"]
    title = f"{record['title']}: mean over {len(record['worlds'])} worlds"
    rows = []
    for name in record["means"]:
        cells = [replace(_measured_cell(record, name, one), sign=_apart(record, name, one)) for one in measures]
        rows.append([Cell(_label(record, name)), *cells])
    scores = [one["column"].partition("/")[2] for one in measures]
    headings = ["", *(f"{one['heading']}\n{MEASURED[one['kind']] or one['sign']}" for one in measures)]
    return terminal(Section(title, headings, rows), width, by_importance(scores, MAIN))


def worlds_legend(record: Record) -> str:
    """What the signs of :func:`worlds_summary` mean, in a line or more."""
    test = f"{APART} differs from {record['reference']} over worlds (exact sign-flip test, Holm, 5 %)"
    what = "from gold: distance to gold's value; floor: that of a second gold; less vanilla: 0 is as vanilla"
    return "\n".join([f"bold: closest to gold, most kept, best formed; {test}", what, *missing_notes(record)])


def _label(record: Record, name: str) -> str:
    """Name of a row, and in how many worlds it was run if not in all."""
    most = max((column["worlds"] for column in record["means"][name].values()), default=0)
    return name if most == len(record["worlds"]) else f"{name} ({most} of {len(record['worlds'])} worlds)"


def _means(record: Record) -> Section:
    measures = record["measures"]
    rows = [
        [_label(record, name), *(_number(means[one["column"]]["value"]) for one in measures)]
        for name, means in record["means"].items()
    ]
    note = "Mean over worlds. ↑ high, ↓ low, ★ near gold is good: below gold is no better than above it."
    return Section("Over worlds", ["", *(f"{one['heading']} {one['sign']}" for one in measures)], rows, note)


def _distances(record: Record) -> Section:
    measures = record["measures"]
    rows = []
    for name in record["means"]:
        rows.append([Cell(_label(record, name)), *(_measured_cell(record, name, one) for one in measures)])
    note = (
        "Mean over worlds of what is compared. From gold: how far the value is from gold's in each world; that "
        "of the second gold model is the floor, how far gold is from itself. Above the floor: KL to gold less that of "
        "the second gold model. Less vanilla: 0 is as vanilla, below it something was lost. **Bold** is the method, of "
        "those run in every world, that is closest to gold, keeps most or is best."
    )
    return Section("How far from gold", ["", *(_words(one, MEASURED) for one in measures)], rows, note)


def _differences(record: Record) -> list[Section]:
    """One of the people to forget, one of the others."""
    reference, found = record["reference"], []
    said = statistics_note(len(record["methods"]), reference)
    note = f"{said} Positive: closer to gold than {reference}, more kept, or better."
    for title, forgotten in (("people to forget", True), ("people to keep", False)):
        measures = [one for one in record["measures"] if (_split(one) in FORGOTTEN) == forgotten]
        rows = []
        for name in record["methods"]:
            column = [record["differences"][one["column"]].get(name) for one in measures]
            if any(column):
                rows.append([name, *(_difference(one, len(record["worlds"])) for one in column)])
        headings = ["", *(_words(one, BETTER) for one in measures)]
        found.append(Section(f"Differences from {reference}: {title}", headings, rows, note))
        note = "As above."
    return found


def _split(one: Mapping[str, Any]) -> str:
    return str(one["column"].partition("/")[0].removesuffix(TEXT))


def _difference(found: Mapping[str, Any] | None, worlds: int) -> str:
    if found is None:
        return ""
    ends = f" [{_signed(found['low'])}, {_signed(found['high'])}]" if found["low"] is not None else ""
    fewer = f" ({len(found['worlds'])} worlds)" if len(found["worlds"]) < worlds else ""
    return f"{_signed(found['estimate'])}{f' {APART}' * differs(found)}{ends} p {found['p_holm']:.3f}{fewer}"


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # no -0


def _by_world(record: Record, one: Mapping[str, Any]) -> Section:
    rows = []
    for name in record["means"]:
        values = [record["values"][world].get(name, {}).get(one["column"]) for world in record["worlds"]]
        if any(value is not None for value in values):
            rows.append([name, *map(_number, values)])
    title = f"World by world: {one['heading']} {one['sign']}"
    return Section(title, ["", *(f"world {world}" for world in record["worlds"])], rows)


def _words(one: Mapping[str, Any], words: Mapping[str, str]) -> str:
    return ": ".join(part for part in (one["heading"], words[one["kind"]]) if part)


def _measured_cell(record: Record, name: str, one: Mapping[str, Any]) -> Cell:
    means = {other: columns[one["column"]] for other, columns in record["means"].items()}
    value, everywhere = means[name]["measured"], len(record["worlds"])
    if value is None:
        return Cell()
    ranked = {
        other: one["good"] * round(mean["measured"], 3)
        for other, mean in means.items()
        if other in record["methods"] and mean["measured"] is not None and mean["worlds"] == everywhere
    }
    best = name in ranked and len(ranked) > 1 and ranked[name] == max(ranked.values())
    return Cell(_signed(value) if one["kind"] in ("floor", "kept") else f"{value:.3f}", "best" if best else "")


def _apart(record: Record, name: str, one: Mapping[str, Any]) -> str:
    found = record["differences"][one["column"]].get(name)
    return APART if found and differs(found) else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
