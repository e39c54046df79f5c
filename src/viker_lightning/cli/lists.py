"""``python -m viker_lightning {methods,datasets}``: what there is, a line each, from the classes themselves."""

import re

from viker_lightning import methods
from viker_lightning.data import datasets
from viker_lightning.errors import UserError
from viker_lightning.methods.described import arxiv_numbers, by_default, needs, parts
from viker_lightning.terminal.commands import LISTS, program


def methods_list() -> list[str]:
    """Every method: name, paper, what it does, and in brackets what it needs beside the forget questions."""
    lines = []
    for name in methods.NAMES:
        kind = getattr(methods, name)
        (said, *_) = parts(kind)["name"]
        papers = " ".join(arxiv_numbers(said)) or "ours"
        needed = ", ".join(needs(by_default(kind, methods.GradientAscent()))) or "forget questions alone"
        does = re.split(r"\)[:,]? ", said, maxsplit=1)[-1].rstrip(".")
        lines.append(f"{name:19} {papers:10}  {does} [{needed}]")
    return [*lines, "", "--model.method NAME, or your own as file.Class; --model.method.help NAME has the options"]


def datasets_list() -> list[str]:
    """Every dataset: name, schema, embedded sizes."""
    lines = []
    for name in datasets.__all__:
        kind = getattr(datasets, name)
        if kind is datasets.Benchmark:
            continue
        what = parts(kind)["name"][0]
        sizes = ", ".join(f"mini/{size}" for size in kind.embedded.sizes) if kind.embedded else ""
        embedded = f"; embedded: {sizes}" if sizes else ""
        lines.append(f"{name:10} {what.rstrip('.')}{embedded}")
    return [*lines, "", "--data NAME --data.root FOLDER; --data.help NAME has the options; docs/data.md the schemas"]


def main(words: list[str]) -> None:
    """Prints a list, whose name is all that was typed."""
    if words[1:] and words[1:] not in (["--help"], ["-h"]):
        raise UserError(f"{words[0]}: found {words[1]!r}, expected nothing behind it; leave it out")
    if words[1:]:
        print(f"usage: {program()} {words[0]}\n\n{LISTS[words[0]]}")
        return
    print("\n".join({"methods": methods_list, "datasets": datasets_list}[words[0]]()))
