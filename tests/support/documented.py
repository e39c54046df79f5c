"""What README.md and docs/ tell a reader to type, read off the pages themselves."""

import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = (
    "python",
    "make",
    "torchrun",
    "srun",
    "sbatch",
    "pip",
    "wandb",
    "git",
    "source",
    "export",
    "cd",
    "bash",
    "lm_eval",
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block; ``file`` is what the line above calls it, ```name.txt`:``, if that line says nothing else."""

    page: str
    line: int
    language: str
    text: str
    file: str | None = None

    def __str__(self):
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command: the words a shell would see, without comment."""

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self):
        return f"{self.page}:{self.line} {' '.join(self.words)}"[:100]


def blocks(page):
    text, all_found = page.read_text("utf-8"), []
    for found in FENCE.finditer(text):
        named = re.search(r"(?:^|\n)`([\w./-]+\.\w+)`:\n+$", text[: found.start()])
        line = text.count("\n", 0, found.start()) + 1
        all_found.append(Block(page.name, line, found[1], found[2], named[1] if named else None))
    return all_found


def block_commands(block):
    """Every command of a shell block; a line that ends in a backslash goes on."""
    lines = re.sub(r"\\\n\s*", " ", block.text).split("\n")
    found = [(i, shlex.split(line, comments=True)) for i, line in enumerate(lines, start=1)]
    return [Command(block.page, block.line + i, tuple(words)) for i, words in found if words]


def inline(page):
    """Code within text: line and content, a line break being a space."""
    text = page.read_text("utf-8")
    bare = FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
    return [(bare.count("\n", 0, m.start()) + 1, " ".join(m[1].split())) for m in INLINE.finditer(bare)]


def commands():
    """Every command of all pages: those of shell blocks, and those within text that are more than a name."""
    found = []
    for page in PAGES:
        for block in blocks(page):
            if block.language in ("bash", "sh", "shell", "console"):
                found += block_commands(block)
        for line, code in inline(page):
            words = tuple(shlex.split(code)) if code.split()[0] in PROGRAMS else ()
            if len(words) > 1:
                found.append(Command(page.name, line, words))
    return list(dict.fromkeys(found))


def options():
    """Options named within text, ``--name value ...``, as words."""
    return [
        Command(page.name, line, tuple(shlex.split(code)))
        for page in PAGES
        for line, code in inline(page)
        if code.startswith("--")
    ]


def check_installed(words):
    """What follows ``pip install``: this folder, since the package is on no index, or packages of an extra."""
    for word in words:
        extras = re.search(r"\[([\w,]+)\]", word)
        for extra in extras[1].split(",") if extras else []:
            assert extra in EXTRAS, f"{word}: no extra {extra}"
        name = re.match(r"[\w-]+", word)
        known = name and name[0] != PROJECT["name"] and name[0] in (ROOT / "pyproject.toml").read_text("utf-8")
        assert word.startswith(("-", ".")) or known, f"{word} is neither this folder nor a package of an extra"


def links(page):
    """Targets of links and pictures that are files of the repository, with the heading they point at."""
    text = FENCE.sub("", page.read_text("utf-8"))
    found = [target for target in LINK.findall(text) if not re.match(r"\w+://|mailto:", target)]
    return [tuple((target + "#").split("#")[:2]) for target in found]


def anchors(page):
    """Names of a page's headings as links have them."""
    text = FENCE.sub("", page.read_text("utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
