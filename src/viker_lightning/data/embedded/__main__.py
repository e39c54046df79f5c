"""``python -m viker_lightning.data.embedded RUN``: takes the model of a run of mini/base.yaml into the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from viker_lightning.errors import UserError

from .base_model import base_model, package


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="viker_lightning.data.embedded", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the finished run")
    parser.add_argument("--to", type=Path, default=base_model(), help="folder; by default the package's own")
    given = parser.parse_args(arguments)
    try:
        print(package(given.run, given.to))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
