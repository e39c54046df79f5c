"""Draws flatness.svg: KL to gold against what distinguishes a model from gold, by how many strangers a target has.

python docs/flatness.py     also prints each step's mean difference over worlds, with the exact two-sided sign-flip p
"""

import json
from itertools import pairwise
from pathlib import Path
from statistics import mean

import matplotlib as mpl

from viker_lightning.metrics.statistics.paired import sign_flip
from viker_lightning.reporting.plots import INK, MUTED, SERIES, STYLE, panels

DOCS = Path(__file__).resolve().parent
LINES = {
    "Double": ["Double", *(f"doubles = {m}" for m in (3, 10, 40))],
    "ViKeR": ["ViKeR, k = 1", "ViKeR, k = 3", "ViKeR", "ViKeR, k = 40"],
}
LABELS = {"Double": "1", "ViKeR": "10"} | {
    row: row.split()[-1] for line in LINES.values() for row in line if "=" in row
}
STEPS = 20
TITLES = ("membership: area", "choice: true span likeliest", "samples, less guessing", f"relearning, {STEPS} steps")


def seen(attacks: dict, row: str, who: str) -> list[list[float]]:
    """What the attacks of the titles find of the run or of gold, world by world."""
    found = [value["attacks"] for value in attacks["values"] if value["row"] == row]
    again = [
        one[who] for one in attacks["relearning"] if one["row"] == row and one["steps"] == STEPS and not one["adapter"]
    ]
    samples = [one["sample"][who] - one["sample"][f"{who}_chance"] for one in found]
    return [[one["membership"][who] for one in found], [one["choose"][who] for one in found], samples, again]


def steps(worlds: dict, attacks: dict) -> None:
    """Prints by how much each target differs from the one before it, and the last from the first."""
    for line in LINES.values():
        for before, after in [*pairwise(line), (line[0], line[-1])]:
            first, second = (
                [[of[row]["test/kl_gold"] for of in worlds["measured"].values()], *seen(attacks, row, "run")]
                for row in (before, after)
            )
            columns = zip(first, second, strict=True)
            differences = [[b - a for a, b in zip(*column, strict=True)] for column in columns]
            cells = (f"{mean(one):+.3f} p {sign_flip(one):.3f}" for one in differences)
            print(
                f"{before} -> {after}: ", *(f"{t}: {c}" for t, c in zip(("KL", *TITLES), cells, strict=True)), sep="  "
            )


def main() -> None:
    """Draws the picture beside this file, of the records in results."""
    worlds = json.loads((DOCS / "results/worlds_doubles-mini.json").read_text("utf-8"))
    attacks = json.loads((DOCS / "results/attacks/worlds_doubles-mini.json").read_text("utf-8"))
    steps(worlds, attacks)
    kl = {
        row: mean(of[row]["test/kl_gold"] for of in worlds["measured"].values())
        for line in LINES.values()
        for row in line
    }
    with mpl.rc_context(STYLE):
        figure, every = panels(4, 4, 2.6, 2.8)
        for number, (axes, title) in enumerate(zip(every, TITLES, strict=True)):
            axes.axhline(mean(seen(attacks, "Double", "gold")[number]), color=INK, lw=1)
            for colour, (name, line) in zip(SERIES, LINES.items(), strict=False):
                points = [(kl[row], mean(seen(attacks, row, "run")[number])) for row in line]
                axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, label=name)
                for row, point in zip(line, points, strict=True):
                    axes.annotate(
                        LABELS[row], point, (3, 3), textcoords="offset points", fontsize="x-small", color=MUTED
                    )
            axes.set_title(title, fontsize="small")
        every[0].legend(fontsize="small")
        figure.supxlabel(
            "KL to gold less that of another gold model, test photos, nats a token; horizontal: gold", fontsize="small"
        )
        figure.savefig(DOCS / "flatness.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
