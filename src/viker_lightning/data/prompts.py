"""How the tasks of MLLMU-Bench are put into words; training data and evaluation share these strings."""

from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def choice_prompt(question: str, options: Sequence[str]) -> str:
    """A multiple-choice question with its options, answered by the text of the right option.

    Options are listed as in MLLMU-Bench (franciscoliu/MLLMU-Bench eval.py L310-360); the request for one letter is
    replaced by a request for the option, because the option's likelihood is scored.
    """
    listed = "\n".join(f"{letter}: {option}" for letter, option in zip(LETTERS[: len(options)], options, strict=True))
    return f"{question}\n{listed}\nAnswer with the right option."


def cloze_prompt(question: str) -> str:
    """A sentence with a blank ``__``, as MLLMU-Bench asks it (franciscoliu/MLLMU-Bench eval.py L534)."""
    blank = question.replace("__", "[Blank]")
    return f"{blank}\nPlease **ONLY** provide the correct answer that should replace the [Blank]."
