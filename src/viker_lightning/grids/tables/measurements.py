"""What the runs of a table say besides scores: how key tokens were found and pulled, and what the runs cost."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from viker_lightning.reporting.section import Cell, Section
from viker_lightning.storage.runs import Run

from .table import Table

KEY_TOKENS = {
    "auroc": "AUROC, all private tokens",
    "auroc_first": "AUROC, first tokens",
    "entropy_private": "entropy, private",
    "entropy_template": "entropy, other",
    "gradient_weight_key": "gradient weight, key",
    "gradient_weight_other": "gradient weight, other",
}
"""Numbers of :func:`key_tokens` and their headings."""

KEY_TOKENS_NOTE = (
    "Key-token entropy is that of the ideal distribution, nats. AUROC: how well it tells private from other tokens of "
    "the forget answers, or the first token of each private span from those (0.5 is chance). Gradient weight: mean "
    "over the logged steps of |p - ideal| on key tokens (entropy over 0.5 nats) and on the others, 0 to 1."
)
COSTS = {"seconds": "seconds", "peak_memory_mib": "peak memory, MiB", "peak_gpu_memory_mib": "peak GPU memory, MiB"}
"""Numbers of :func:`costs` and their headings."""

COSTS_NOTE = (
    "A run as a whole, loading and evaluation included; mean over the runs of a row. Memory is main memory; "
    "GPU memory is the most that tensors took on one GPU in the last part of a run. A run that "
    "was stopped and resumed counts all its parts, except one whose grid was killed with it. Where numbers before "
    "training are shown, the run of seed 0 that they are taken from evaluates once more. Runs that make the vanilla "
    "model, or wait for it, include that: the first ones of a grid on a machine without it."
)


def key_tokens(table: Table) -> list[dict[str, Any]]:
    """Key-token numbers of every row whose runs have any, mean over its runs.

    Returns:
        ``block``, ``row``, ``runs`` and, as far as they were measured, what :data:`KEY_TOKENS` names.
    """
    rows = []
    for group, blocks in table.groups.items():
        for name, row in table.grid.rows.items():
            after = [] if row.before else [run for block in blocks for run in table.read_runs(block, name)[1]]
            runs = [run for run in after if run.results.get("key_tokens")]
            means = {key: value for key in KEY_TOKENS if (value := _mean(runs, key)) is not None}
            if means:
                rows.append({"block": group, "row": name, "runs": len(runs)} | means)
    return rows


def _mean(runs: Sequence[Run], key: str) -> float | None:
    """Mean over runs of a number of the key-token report, or of a curve."""
    values = []
    for run in runs:
        curve = run.curves.get(f"train/{key}", [])
        value = mean(v for _, v in curve) if curve else run.results["key_tokens"].get(key)
        values += [value] if isinstance(value, int | float) else []
    return round(mean(values), 6) if values else None


def costs(table: Table) -> list[dict[str, Any]]:
    """Wall time and peak memory of every row with finished runs of its own, mean over them.

    Returns:
        ``block``, ``row``, ``runs``, ``seconds``, ``peak_memory_mib`` and, of runs on GPUs, ``peak_gpu_memory_mib``.
    """
    rows = []
    for group, blocks in table.groups.items():
        for name, row in table.grid.rows.items():
            mine = [] if row.before else [run for block in blocks for _, run in table.runs_of(block, name)]
            runs = [run for run in mine if run["state"] == "finished"]
            if runs:
                read = [run for block in blocks for run in table.read_runs(block, name)[1]]
                gpu = [run.provenance.get("peak_gpu_memory_bytes") for run in read]
                gpu_bytes = [peak for peak in gpu if peak]
                rows.append(
                    {"block": group, "row": name, "runs": len(runs)}
                    | {"seconds": round(mean(run["seconds"] or 0 for run in runs), 1)}
                    | {"peak_memory_mib": round(mean(run["peak_memory_bytes"] or 0 for run in runs) / 2**20)}
                    | ({"peak_gpu_memory_mib": round(mean(gpu_bytes) / 2**20)} if gpu_bytes else {})
                )
    return rows


def described(table: Table) -> dict[str, Any]:
    """What every record of a table says beside its numbers, for JSON: what it is, its runs, and what was measured."""
    return {
        "table": table.grid.name,
        "title": table.grid.title,
        "scale": table.grid.scale,
        "note": table.grid.note,
        "seeds": table.grid.seeds,
        "runs": [run for _, run in table.runs],
        "made_with": table.made_with(),
        "tuning": table.settings_tried,
        "key_tokens": key_tokens(table),
        "costs": costs(table),
    }


def measured_sections(tokens: Sequence[dict[str, Any]], spent: Sequence[dict[str, Any]]) -> list[Section]:
    """Tables of :func:`key_tokens` and :func:`costs`, of what was measured."""
    parts = [
        ("Key tokens", KEY_TOKENS_NOTE, KEY_TOKENS, tokens, 3),
        ("Run time and memory", COSTS_NOTE, cost_headings(spent), spent, 0),
    ]
    return [_measured(*part) for part in parts if part[3]]


def _measured(
    title: str, note: str, headings: Mapping[str, str], found: Sequence[dict[str, Any]], decimals: int
) -> Section:
    rows = []
    for name, row in zip(row_names(found), found, strict=True):
        cells = [Cell(name), Cell(str(row["runs"]))]
        for key in headings:
            most = max(other.get(key, 0) for other in found)
            bar = row[key] / most if key in row and most and not decimals else 0.0
            cells.append(Cell(f"{row[key]:.{decimals}f}" if key in row else "", bar=bar))
        rows.append(cells)
    return Section(title, ["", "runs", *headings.values()], rows, note)


def ending_sections(record: Mapping[str, Any], runs: Section, settings: Section | str = "") -> list[Section | str]:
    """The end of a Markdown page: which runs failed, how many are not finished, settings, all runs, versions."""
    failed = [f"- {run_title(run)}: {run['error']}" for run in record["runs"] if run["state"] == "failed"]
    waiting = sum(run["state"] in ("missing", "started") for run in record["runs"])
    made = [f"- {fact}: {', '.join(values)}" for fact, values in record["made_with"].items()]
    return [
        Section("Failed", note="\n".join(failed)) if failed else "",
        f"{waiting} of {len(record['runs'])} runs are not finished." if waiting else "",
        settings,
        runs,
        Section("Made with", note="\n".join(made)) if made else "",
    ]


def cost_headings(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Those of :data:`COSTS` that any of the rows has: GPU memory only if it was measured."""
    return {key: heading for key, heading in COSTS.items() if any(key in row for row in rows)}


def seconds(run: Mapping[str, Any]) -> str:
    """What a run of a record took, for a cell."""
    return "" if run["seconds"] is None else str(run["seconds"])


def run_title(run: Mapping[str, Any]) -> str:
    """What a run of a record is called."""
    return " / ".join(part for part in (run["block"], run["row"], f"seed {run['seed']}") if part)


def row_names(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What each of the rows is called: with its block, where there are several."""
    several = len({row["block"] for row in rows}) > 1
    return [f"{row['block']}, {row['row']}" if several else row["row"] for row in rows]
