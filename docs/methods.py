"""Writes docs/methods.md: every method of ``viker_lightning.methods.NAMES``, from its class.

How a docstring is read says ``viker_lightning.methods.described``. What a method needs is what it declares with default
arguments. Configs are those of ``configs/mini``; the cost of a step is in
``benchmarks/results.json``, what was measured in ``docs/results/worlds*-mini.json``. ``python docs/methods.py`` writes
the page; a test runs it and finds nothing to change.
"""

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml

from viker_lightning import methods
from viker_lightning.methods.described import arxiv_numbers, needs, parts

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PAGE = DOCS / "methods.md"
sys.path.append(str(ROOT / "benchmarks"))

from classes import configs, default  # noqa: E402 - it stands in that folder

NOT_TRIED = "not tried"

HEAD = """# Every method

Every method there is, written by `python docs/methods.py` from the classes themselves. A method is
chosen by its name, `--model.method NPO`, or by its config,
`python -m viker_lightning fit --config configs/mini/npo.yaml`; [concepts](concepts.md) has ViKeR and
Stranger in full, [your own method](method.md) how another one is written.

- *needs*: what a step asks beside the forget questions, with default arguments; of a method around
  another one, what it adds. The frozen model is the one before unlearning; other answers are
  refusals, wrong ones, or what the frozen model answers about strangers.
- *step*: seconds of a step in steps of gradient ascent, with default arguments (layers as the config
  has them), on two photos with 6 questions each, what frozen models say being kept
  ([benchmarks/results.md](../benchmarks/results.md), `make bench`); of a method without steps, all
  it does. Empty where it was not measured.
- *reproduced*: what was measured here. No number of a paper is reproduced yet, since the published
  files and weights have not been run by us; loss and gradient of each class are held to its formula,
  written out, in `tests/methods`, and faults of published code that it does not have are in
  `tests/training/published/test_defects.py`. Measured are means over [embedded worlds](results.md):
  test Keywords, near gold's {gold} being good, and gold's KL from the model, nats a token, {floor}
  being that of another seed of gold. Settings are the best of ten that `make tune` has drawn for
  each ([tuning](results_methods.md#tuning)); those of AgainstRelearning are a first guess, as are
  those of a method that was not tried.
"""


def paper(name: str) -> str:
    """Links to the papers a sentence names, ``ours``, or nothing."""
    links = [f"[{number}](https://arxiv.org/abs/{number})" for number in arxiv_numbers(name)]
    return ", ".join(links) or ("ours" if re.search(r"\bours\b", name) else "")


def steps() -> dict[str, dict[str, Any]]:
    """What ``make bench`` has measured of each class; empty if nothing."""
    results = json.loads((ROOT / "benchmarks/results.json").read_text("utf-8"))
    return {row["method"]: row for row in results.get("llava", {}).get("classes", [])}


def cost(row: dict[str, Any] | None) -> str:
    """The cost of a step; of a method without steps, that of all it does."""
    if row is None:
        return ""
    if row["of_gradient_ascent"] is None:
        return f"{row['before_first_step']:.1f} in all"
    return f"{row['of_gradient_ascent']:.1f}"


def record() -> dict[str, Any]:
    """What was measured over worlds."""
    return json.loads((DOCS / "results/worlds-mini.json").read_text("utf-8"))


def measured(results: Path = DOCS / "results") -> dict[str, str]:
    """What was measured over worlds with a config as it is, by the name of its file."""
    found: dict[str, str] = {}
    for file in sorted(results.glob("worlds*-mini.json")):
        grid = ROOT / f"experiments/{file.stem.removesuffix('-mini')}.yaml"
        rows = yaml.safe_load(grid.read_text("utf-8"))["scales"]["mini"]["rows"]
        for name, mean in json.loads(file.read_text("utf-8"))["means"].items():
            row = rows.get(name, {})
            values = [mean.get(column, {}).get("value") for column in ("test/keyword_match", "test/kl_gold")]
            if "config" in row and "options" not in row and None not in values:
                found.setdefault(Path(row["config"]).name, f"Keywords {values[0]:.2f}, KL {values[1]:.2f}")
    return found


def page() -> str:
    """The whole page."""
    costs, worlds, results = steps(), record(), measured()
    means = worlds["means"]
    gold = f"{means[worlds['gold']]['test/keyword_match']['value']:.2f}"
    floor = f"{means[worlds['second_gold']]['test/kl_gold']['value']:.2f}"
    table = [
        ["method", "paper", "needs", "config", "step", "code followed", "differs", "reproduced"],
        ["---"] * 8,
    ]
    sections = []
    for name in methods.NAMES:
        said, used = parts(getattr(methods, name)), [*configs(name)]
        links = ", ".join(f"[{file}](../configs/mini/{file})" for file in used)
        differs = f"[below](#{name.lower()})" if said["differs"] else ""
        reproduced = "; ".join(results[file] for file in used if file in results)
        needed = ", ".join(needs(default(name, methods.GradientAscent())))
        cells = [f"`{name}`", paper(said["name"][0]), needed, links, cost(costs.get(name))]
        table.append([*cells, " ".join(said["followed"]).rstrip("."), differs, reproduced or NOT_TRIED])
        sections.append(section(name, said))
    rows = "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in table)
    return f"{HEAD.format(gold=gold, floor=floor)}\n{rows}\n" + "\n".join(sections)


def section(name: str, said: dict[str, list[str]]) -> str:
    """What is said of a method, the formula in a block of its own."""
    lines = [f"## {name}", *said["name"]]
    for formula in said["formula"]:
        code, rest = re.match(r"`([^`]*)`(.*)", formula).groups()  # type: ignore[union-attr]
        lines.append(f"```text\n{code}\n```")
        lines += [rest.lstrip(",. ").strip()] if re.search(r"\w", rest) else []
    lines += [f"{key.capitalize()}: {' '.join(said[key])}" for key in ("followed", "differs") if said[key]]
    return "\n\n".join(map(wrapped, [*lines, *said["more"]])) + "\n"


def wrapped(paragraph: str) -> str:
    """A paragraph in lines of the pages' width; a formula, and code within a line, stays whole."""
    if paragraph.startswith("```"):
        return paragraph
    code = re.sub(r"`[^`]*`", lambda found: found[0].replace(" ", "\0"), paragraph)
    return textwrap.fill(code, 100, break_long_words=False, break_on_hyphens=False).replace("\0", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
