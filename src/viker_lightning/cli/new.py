"""``python -m viker_lightning new KIND NAME``: the files a page shows, under another name: code, YAML and a test."""

import argparse
import re
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path

from viker_lightning.errors import UserError, say, short
from viker_lightning.storage.files import write_text
from viker_lightning.storage.packaged_configs import PACKAGE
from viker_lightning.terminal.commands import program
from viker_lightning.terminal.failures import ending_in_one_line

KINDS = {
    "method": ("method.md", "SimNPO"),
    "score": ("metrics.md", "UnigramF1"),
    "dataset": ("data.md", "Pets"),
    "attack": ("attacks.md", "Tale"),
    "family": ("model.md", "VipLlava"),
}
"""The page that shows one, and how it is called there."""


def main(words: list[str] | None = None) -> None:
    """The command line; errors a user can fix end in one line and exit code 1."""
    parser = argparse.ArgumentParser(prog=f"{program()} new", description=str(__doc__).split(": ", 1)[1])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("name", help="of the class, such as PushAway, whose files are push_away.py and so on")
    given = parser.parse_args(words)
    with ending_in_one_line():
        files = new_files(given.kind, given.name)
        for file in files:
            if Path(file).exists():
                raise UserError(f"{file}: found a file, expected none; give another name, or move it away")
        there = find_spec(_stem(given.name))
        if there and there.origin:  # a folder has none, such as that of the data
            raise UserError(f"new: found the name {given.name}, but {there.name} is a module already; give another")
        for file, text in files.items():
            write_text(Path(file), text)
        say(f"{', '.join(files)}: change them to your own; docs/{KINDS[given.kind][0]} says how to use it")


def new_files(kind: str, name: str) -> dict[str, str]:
    """The text of every file by its name: what the page of a kind shows, with a class of this name."""
    if not re.fullmatch(r"[A-Za-z]\w{0,99}", name, re.ASCII) or iskeyword(name) or iskeyword(_stem(name)):
        raise UserError(f"new: found the name {short(name)}, expected one of Python's, such as PushAway; give another")
    page, shown = KINDS[kind]
    folder = next(one for one in (PACKAGE / "pages", PACKAGE.parents[1] / "docs") if one.is_dir())
    page_text, found = (folder / page).read_text("utf-8"), {}
    for pattern in ("{}.py", "{}.yaml", "test_{}.py"):
        heading = re.escape(f"`{pattern.format(_stem(shown))}`:")
        (text,) = re.findall(rf"^{heading}\n\n```\w+\n(.*?)^```$", page_text, re.MULTILINE | re.DOTALL)
        if name != shown and re.search(rf"\b{name}\b", text):
            raise UserError(f"new: found the name {name}, but a {kind} has {name} for something else; give another")
        text = re.sub(rf"\b{shown}\b", name, text)
        found[pattern.format(_stem(name))] = re.sub(rf"\b{_stem(shown)}\b", _stem(name), text)
    return found


def _stem(name: str) -> str:
    """``push_away`` of ``PushAway``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
