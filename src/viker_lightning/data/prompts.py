"""How the tasks of MLLMU-Bench and CLEAR are put into words; training data and evaluation share these strings."""

from __future__ import annotations

from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

CAPTION_QUESTIONS = (
    "What can you see in this picture?",
    "Tell me about the content of this image",
    "Can you give a description of the image?",
    "What is depicted in the image?",
    "Explain what you observe in the picture.",
    "Describe the image in detail.",
    "What is the main subject of this image?",
    "Can you describe the scene or objects in the image?",
    "What is happening in this image?",
)
"""What CLEAR asks for a caption with (somvy/multimodal_unlearning mm/dataset.py L9-19)."""

NAME_QUESTION = "The name of the person on the image is"
"""What CLEAR asks for a name with (mm/dataset.py L120, there with a space at the end, which a template adds)."""

CHOICE_QUESTION = "What is the name of the person in the image?"
"""What MMUnlearner asks with names as options (Z1zs/MMUnlearner CLEAR_eval.py L196-211)."""

BLOCK = 20
"""Consecutive text-only rows about one TOFU author."""


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
