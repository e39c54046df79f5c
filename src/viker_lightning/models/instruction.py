"""The instruction beside saved weights, which stands before every question that they are asked here."""

import json
from pathlib import Path

from transformers.utils.hub import cached_file

from viker_lightning.errors import UserError
from viker_lightning.storage.files import write_json

INSTRUCTION = "instruction.json"


def save_instruction(instruction: str, folder: str | Path) -> None:
    """Writes it beside weights, if there is one."""
    if instruction:
        write_json(Path(folder) / INSTRUCTION, {"instruction": instruction})


def saved_instruction(source: str | Path, revision: str | None = None) -> str:
    """The instruction beside weights, of a folder or on the hub; empty for none, a UserError where it is no text."""
    quiet = ("_raise_exceptions_for_missing_entries", "_raise_exceptions_for_connection_errors")
    file = cached_file(str(source), INSTRUCTION, revision=revision, **dict.fromkeys(quiet, False))
    if file is None:
        return ""
    try:
        return str.strip(json.loads(Path(file).read_text("utf-8"))["instruction"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        expected = 'expected {"instruction": "some text"}; write it so, or remove the file'
        raise UserError(f"{file}: found no instruction, {expected}") from error
