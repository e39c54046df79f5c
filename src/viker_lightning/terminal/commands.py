"""What can be typed behind ``viker-lightning``, in words; nothing here takes long to import."""

import argparse
import sys
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

COMMANDS = {
    "fit": "train: teach a model people, or have it forget some; evaluates before and after, writes a run folder",
    "validate": "ask the questions of the benchmark and score the answers: of a model, or of a finished run",
    "test": "the same as validate; what it writes has names of its own",
    "predict": "answer questions of your own (data: Questions)",
    "preview": "show the very tokens that fit would train on, and train nothing; takes the options of fit",
    "check": "what a run will take, or what is wrong with it, in advance and without weights; takes the options of fit",
}
"""Those that take a config."""

LISTS = {
    "methods": "list the methods: paper, what they do, what they need",
    "datasets": "list the datasets: schema, embedded sizes",
}
"""Those that only say what there is."""

PROGRAMS = {
    "reporting": ("reporting.__main__", "report and comparison of finished runs"),
    "attacks": ("attacks.__main__", "does it come back? attacks on a finished run"),
    "grids": ("grids.__main__", "grids of runs, with their tables and figures"),
    "tune": ("grids.tuning.tune", "settings for methods, the same number for each, drawn from a file of spaces"),
    "export": ("cli.export", "full weights of a finished run, for plain transformers; its questions, for lmms-eval"),
    "chat": (
        "cli.chat.__main__",
        "a page on this machine that asks vanilla, unlearned and gold models, side by side (needs Gradio)",
    ),
    "new": ("cli.new", "files to begin a method, score, dataset, attack or family with"),
    "clean_cache": ("cli.clean_cache", "remove what was built once"),
}
"""Those that have options of their own: the module whose ``main`` takes them, and what it does."""


def program() -> str:
    """What the user has typed to start this."""
    as_module = Path(sys.argv[0]).parts[-2:] == ("viker_lightning", "__main__.py")
    return "python -m viker_lightning" if as_module else "viker-lightning"


def listed(words: Iterable[str], names: Container[str] = ()) -> list[str]:
    """A list as it is typed: ``a b`` or ``a,b``; what is one of ``names`` may have a comma itself."""
    return [one for word in words for one in ([word] if word in names else word.split(",")) if one]


class Listed(argparse.Action):
    """An option that takes a list, see :func:`listed`."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        """Stores it."""
        setattr(namespace, self.dest, listed(values))


def summary() -> str:
    """What ``--help`` says, where no command stands before it."""
    name = program()
    return "\n".join(
        [
            f"usage: {name} COMMAND --config FILE [--option VALUE ...]",
            "",
            "Make a multimodal language model forget people, and show that it has.",
            "",
            "commands:",
            *_lines(COMMANDS),
            *_lines(LISTS),
            *_lines({word: text for word, (_, text) in PROGRAMS.items()}),
            "",
            f"{name} fit --help lists every option of a command; --model.help Unlearn those of a class;",
            "--print_config, behind all others, prints what differs from the defaults, --print_config=all everything;",
            "--version says which version this is.",
            f"A first run: {name} fit --config configs/mini/viker.yaml",
        ]
    )


def _lines(names: dict[str, str]) -> list[str]:
    return [f"  {name:12} {text}" for name, text in names.items()]
