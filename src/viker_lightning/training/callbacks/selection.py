"""The weights of which evaluation a run ends with."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from viker_lightning.errors import UserError
from viker_lightning.storage.files import replacing_folder
from viker_lightning.storage.runs import names


@dataclass
class Selection:
    """A rule that chooses among the in-between evaluations and the last one.

    Attributes:
        rule: ``last``, or ``lowest_forget_at_retain``: the lowest value on the forget split among those whose value on
            the retain split is at least ``min_retain``; the later one of equals. If none is, the highest on retain.
        by: the metric compared, one of which low means forgotten and high means kept.
        min_retain: least value on the retain split, in the units of the metric.
    """

    rule: Literal["last", "lowest_forget_at_retain"] = "last"
    by: str = "keyword_match"
    min_retain: float = 0.0

    def choose(self, summaries: dict[str, dict[str, dict[str, float]]]) -> tuple[str, bool]:
        """The moment chosen, and whether it meets ``min_retain``.

        Args:
            summaries: by moment, in time, and split.

        Raises:
            UserError: if the metric or a split was not evaluated.
        """
        moments = list(summaries)
        for split in ("forget", "retain"):
            for moment in moments:
                if self.by not in summaries[moment].get(split, {}):
                    both = sorted(set(summaries[moment].get("forget", {})) & set(summaries[moment].get("retain", {})))
                    raise UserError(
                        f"evaluation.selection: {self.by!r} was not measured on {split}; measured on both: "
                        f"{', '.join(both) or 'nothing, see data.splits'}"
                    )
        forget, retain = ({m: summaries[m][split][self.by] for m in moments} for split in ("forget", "retain"))
        meeting = [m for m in moments if retain[m] >= self.min_retain]
        latest_first = list(reversed(meeting or moments))
        if meeting:
            return min(latest_first, key=lambda m: forget[m]), True
        return max(latest_first, key=lambda m: retain[m]), False


def candidate_folder(run: Path, moment: str) -> Path:
    """Where trained weights are kept that may be chosen in the end."""
    return run / names.CHECKPOINTS / moment.replace(" ", "-")


def put_back(run: Path, moment: str) -> None:
    """Copies what was trained, ``adapter/`` or ``model/``, from where it was kept to where a run has it."""
    kept = candidate_folder(run, moment)
    name = names.ADAPTER if (kept / names.ADAPTER).is_dir() else names.MODEL
    with replacing_folder(run / name) as folder:
        shutil.copytree(kept / name, folder, dirs_exist_ok=True)
