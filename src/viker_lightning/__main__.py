"""``viker-lightning``, or ``python -m viker_lightning``: hands the command line on; what needs no model is quick."""

import sys
from importlib import import_module

from viker_lightning import __version__
from viker_lightning.terminal.commands import COMMANDS, LISTS, PROGRAMS, summary


def main(words: list[str] | None = None) -> None:
    """Runs a command; errors a user can fix end in one line and exit code 1.

    Args:
        words: the command line; ``None`` for that of the process.
    """
    given, words = words, sys.argv[1:] if words is None else words
    if words == ["--version"]:
        print(f"viker-lightning {__version__}")
    elif words[:1] and words[0].startswith("-") and {"-h", "--help"} & {*words}:
        print(summary())
    elif not words:
        known = ", ".join([*COMMANDS, *LISTS, *PROGRAMS])
        sys.exit(f"error: command: found none, expected {known}; --help says what they do")
    elif words[0] in LISTS:
        from viker_lightning.cli import lists  # methods and datasets bring torch
        from viker_lightning.terminal.failures import ending_in_one_line

        with ending_in_one_line():
            lists.main(words)
    elif words[0] in PROGRAMS:
        module, _ = PROGRAMS[words[0]]
        import_module(f"viker_lightning.{module}").main(words[1:])
    else:
        from viker_lightning.cli import main as cli  # brings everything

        cli.main(given)


if __name__ == "__main__":
    main()
