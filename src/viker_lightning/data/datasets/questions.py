"""Questions to be answered, whoever they are about: a JSONL or CSV file, for predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch.utils.data import DataLoader
from typing_extensions import override

from viker_lightning.data.records import VQA, ImageGroup, Person, Picture
from viker_lightning.errors import DataError, UserError

from .bad_rows import remove_earlier_list
from .jsonl import OwnFile
from .reading.row import Row
from .reading.text_files import read_lines, read_picture

ANSWERS = ("before", "after")
"""Fields that predict adds to every row."""


@dataclass(frozen=True)
class Ask:
    """A question about an image, or about none.

    Attributes:
        number: position among the rows of the file that could be read, from 0.
        image: the picture; ``None`` for a text-only question.
        question: the text asked.
        row: everything that was in the row.
    """

    number: int
    image: Picture | None
    question: str
    row: dict[str, Any]


class Questions(OwnFile):
    """Questions without known answers, one a row: ``predict`` answers them.

    A row has ``question``, and ``image`` (path relative to the file) unless it is asked as text alone. Whatever else is
    in it, such as ``person`` or the true ``answer``, comes back untouched beside the model's answers.

    Args:
        root: a ``.jsonl``, ``.json`` (one object a line) or ``.csv`` file, or a folder with exactly one.
        on_bad_row: ``error`` stops at the first row that is not as it must be; ``skip`` leaves such rows out, warns,
            and lists them all in ``skipped-predict.txt`` in the run folder.
    """

    def __init__(self, root: str, on_bad_row: Literal["error", "skip"] = "error") -> None:
        super().__init__(root, on_bad_row=on_bad_row)
        self.asks: list[Ask] = []
        self._decoded: set[str] = set()  # images that can be

    @override
    def setup(self, stage: str | None = None) -> None:
        """Reads all rows."""
        if stage not in (None, "predict"):
            raise DataError(f"data: {self.root} holds questions without known answers; use predict, or other data")
        if not self.asks:
            remove_earlier_list(self.trainer)
            with self.bad_rows.reported(self.trainer):
                self.asks = self._read()

    @override
    def people(self, ids: list[str] | None = None) -> list[Person]:
        """Nobody, so that no model can be made on these data."""
        raise DataError(
            f"data: {self.root} holds questions and no people, on whom the model of this config would have to be made "
            "first; use configs/data/questions.yaml with --model.source, a run folder, an adapter or a model"
        )

    def _read(self) -> list[Ask]:
        pictures: dict[str, Picture] = {}
        rows = read_lines(self.file, ["question"], self.bad_rows.handle)
        asked = self.bad_rows.read_each(rows, lambda row: self._read_row(row, pictures))
        if not asked:
            raise DataError(f"{self.root}: no question could be read, {len(self.skipped)} bad rows being skipped")
        return [Ask(number, *one) for number, one in enumerate(asked)]

    def _read_row(self, row: Row, pictures: dict[str, Picture]) -> tuple[Picture | None, str, dict[str, Any]]:
        for name in ANSWERS:
            if name in row:
                raise row.error(name, "predict writes its answers there", "rename or remove the field")
        question = row.text("question")
        if row.is_empty("image"):
            return None, question, dict(row)
        image = read_picture(row, "image", self.folder, pictures)
        if image.key not in self._decoded:
            try:
                image.open()  # a broken image is better known now than after a thousand answers
            except UserError as error:
                raise DataError(str(error)) from error
            self._decoded.add(image.key)
        return image, question, dict(row)

    @override
    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of questions by image; each process gets its own images, in as many batches."""
        groups: dict[str | None, list[Ask]] = {}
        for ask in self.asks:
            groups.setdefault(ask.image.key if ask.image else None, []).append(ask)
        return self.in_batches(list(groups.values()))


def image_group(asks: list[Ask]) -> ImageGroup:
    """Questions about one image, in their order, as a model is asked them."""
    first = asks[0]
    source = "the text-only questions" if first.image is None else first.image.source
    return ImageGroup(source, first.image, vqa=tuple(VQA(ask.question, "") for ask in asks))
