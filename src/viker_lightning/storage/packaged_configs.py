"""Configs that come with the package, wherever it is installed: ``viker_lightning:mini/viker.yaml``."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from viker_lightning.errors import UserError

PREFIX = "viker_lightning:"
"""What stands before the path of such a config, from the folder of configs."""

REPOSITORY = "configs/"
"""How configs name one another: they lie in this folder of the repository."""

PACKAGE = Path(__file__).resolve().parents[1]


def config_folder(package: Path = PACKAGE) -> Path:
    """Where they are: in the package of a wheel, or beside the sources."""
    return next((one for one in (package / "configs", package.parents[1] / "configs") if one.is_dir()), package)


def config_path(name: str) -> str:
    """The file that is meant by the name of a config.

    Args:
        name: ``viker_lightning:<path>`` is a config of the package; so is ``configs/<path>``, as the package's configs
            call one another, unless such a file lies in the folder one is in. Anything else stays what it is.

    Raises:
        UserError: naming the nearest one, if the package has no such config.
    """
    if name.startswith(PREFIX):
        wanted = name.removeprefix(PREFIX)
        known = {file.relative_to(config_folder()).as_posix(): file for file in config_folder().rglob("*.yaml")}
        if wanted not in known:
            near = difflib.get_close_matches(wanted, known, 1)
            hint = f"did you mean {PREFIX}{near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise UserError(f"{name}: no such config comes with the package; {hint}")
        return str(known[wanted])
    if name.startswith(REPOSITORY) and not os.path.exists(name):
        file = config_folder() / name.removeprefix(REPOSITORY)
        return str(file) if os.path.isfile(file) else name  # False, too, for what cannot be a path
    return name


def config_paths(words: Sequence[str]) -> list[str]:
    """A command line with files in place of ``viker_lightning:<path>``, which may stand behind ``--config=``, too."""
    found = []
    for word in words:
        option, given, value = word.partition("=") if word.startswith("-") else ("", "", word)
        found.append(f"{option}{given}{config_path(value)}" if value.startswith(PREFIX) else word)
    return found
