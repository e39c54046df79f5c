"""What the site needs beside the pages themselves (``make docs``; mkdocs.yml names this file as a hook).

Pages are written for GitHub: they link to files of the repository outside ``docs``, have formulae in ``math`` blocks
and headings with GitHub's anchors. Here README.md becomes the first page, every file that is linked to becomes a page
of its own below ``repository/``, formulae become MathML, which needs no script, and anchors are GitHub's.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json", "": "text"}
"""Files that can be shown, by their ending."""

FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s]+)\)")


def slug(title: str, separator: str = "-") -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", separator)


def formula(source: str, *_: Any, **__: Any) -> str:
    """A block of LaTeX as MathML."""
    return convert(" ".join(source.split()), display="block")


def place(path: str) -> str:
    """Where a file of the repository is on the site, as the path of its Markdown.

    Args:
        path: from the repository's folder.
    """
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/") and not path.endswith(".py"):
        return path.removeprefix("docs/")
    return f"repository/{path}" + ("" if path.endswith(".md") else ".md")


def linked(text: str, path: str) -> list[tuple[str, str, str]]:
    """Links of a page that stay in the repository: as written, the file, and the heading with its ``#``."""
    found = []
    for _, target in LINK.findall(FENCE.sub("", text)):
        file, mark, heading = target.partition("#")
        if file and not re.match(r"\w+:", target):
            found.append((target, posixpath.normpath(posixpath.join(posixpath.dirname(path), file)), mark + heading))
    return found


def shown(path: str) -> bool:
    """Whether a file can be a page; a folder, or a picture, cannot."""
    file = ROOT / path
    return file.is_file() and (file.suffix == ".md" or file.suffix in LANGUAGES)


def content(path: str) -> str:
    """The page of a file: itself if it is Markdown, else its text in a block."""
    text = (ROOT / path).read_text("utf-8")
    if path.endswith(".md"):
        return text
    return f"# {path}\n\n````{LANGUAGES[Path(path).suffix]}\n{text}````\n"


def rewritten(text: str, path: str) -> str:
    """A page whose links lead to the pages of the site; a link to a folder is left as its words."""
    targets = {target: (file, heading) for target, file, heading in linked(text, path)}
    here = posixpath.dirname(place(path))

    def one(found: re.Match[str]) -> str:
        words, target = found.groups()
        if target not in targets or words.startswith("!"):
            return found[0]
        file, heading = targets[target]
        if (ROOT / file).is_dir():
            return words[1:-1]
        return f"{words}({posixpath.relpath(place(file), here or '.')}{heading})"

    parts = FENCE.split(text)
    return "".join(part if FENCE.fullmatch(part) else LINK.sub(one, part) for part in parts)


def outside() -> list[str]:
    """Files outside ``docs`` that the pages lead to, directly or by one another, with README.md."""
    waiting = ["README.md", *(file.relative_to(ROOT).as_posix() for file in sorted((ROOT / "docs").rglob("*.md")))]
    found: list[str] = []
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.append(path)
        if path.endswith(".md"):
            waiting += [file for _, file, _ in linked((ROOT / path).read_text("utf-8"), path) if shown(file)]
    return sorted(path for path in found if place(path) != path.removeprefix("docs/"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Formulae and anchors."""
    fences = {"custom_fences": [{"name": "math", "class": "math", "format": formula}]}
    config.mdx_configs.setdefault("pymdownx.superfences", {}).update(fences)
    config.mdx_configs.setdefault("toc", {}).update({"slugify": slug, "permalink": True})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files outside ``docs``, and the picture that README.md shows."""
    for path in outside():
        files.append(File.generated(config, place(path), content=content(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are on the site."""
    uri = page.file.src_uri
    path = next((one for one in outside() if place(one) == uri), f"docs/{uri}")
    if not path.endswith(".md"):
        return markdown
    text = rewritten(markdown, path)
    return text.replace("](docs/report.png)", "](report.png)") if path == "README.md" else text
