"""A table whose blocks are requests that come one after another: what is known of the people of each."""

from typing import Any

from viker_lightning.metrics import FORGOTTEN
from viker_lightning.reporting.section import Section
from viker_lightning.reporting.sequence import TOGETHER, Line, by_requests, requests_of_run

from .table import Table

NOTE = (
    "People of one request by themselves, after it and after the requests that followed; mean over seeds. The tables "
    "above have all people forgotten so far."
)


def requests_of_table(table: Table) -> list[list[str]]:
    """Who was forgotten by each request, as far as a run tells."""
    found = [requests_of_run(run) for _, run in table.finished_runs()]
    return max(found, key=len, default=[])


def lines_of(table: Table, name: str, split: str, score: str) -> dict[str, Line]:
    """Values of a row by number of requests: of the people of each, and of all so far if they are to be forgotten."""
    found = {n: table.contenders[block].get(name) for n, block in enumerate(table.blocks, start=1)}
    scores = {n: one.scores for n, one in found.items() if one}
    return by_requests(scores, requests_of_table(table) if split in FORGOTTEN else [], split, score)


def sequence_record(table: Table) -> dict[str, Any]:
    """The lines of every row and column over requests, for JSON."""
    values = {
        name: {f"{split}/{score}": lines_of(table, name, split, score) for split, score, _ in table.columns}
        for name in table.rows
    }
    return {"requests": requests_of_table(table), "values": values}


def sequence_sections(table: Table) -> list[Section]:
    """A table for each score of people to be forgotten: a row for each method and request."""
    found = []
    for split, score, heading in table.columns:
        rows = []
        for name in table.rows if split in FORGOTTEN else ():
            lines = lines_of(table, name, split, score)
            for people, line in lines.items():
                values = dict(line)
                cells = [f"{values[n]:.2f}" if n in values else "" for n in range(1, len(table.blocks) + 1)]
                rows += [[f"{name}, {people}", *cells]] if people != TOGETHER else []
        headings = ["", *(f"after {n}" for n in range(1, len(table.blocks) + 1))]
        found += [Section(f"Each request by itself: {split} {heading}", headings, rows, NOTE)] if rows else []
    return found
