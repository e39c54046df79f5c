"""``python -m viker_lightning.data.embedded``: takes a model into the package, or writes a random one of real size."""

import argparse
import sys
from pathlib import Path

from viker_lightning.errors import UserError

from .base_model import base_model, package
from .random_model import LIKE, write_random_model


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="viker_lightning.data.embedded", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("package", help="take the model of a run of mini/base.yaml into the package")
    packing.add_argument("run", type=Path, help="folder of the finished run")
    packing.add_argument("--to", type=Path, default=base_model(), help="folder; by default the package's own")
    drawing = commands.add_parser("random", help="write random weights in the shape of a published model")
    drawing.add_argument("--like", required=True, choices=LIKE, help="the published model")
    drawing.add_argument("--layers", type=int, help="decoder layers; by default as many as that has")
    drawing.add_argument("--out", type=Path, required=True, help="folder to write; a model that is there is replaced")
    given = parser.parse_args(arguments)
    try:
        if given.command == "package":
            print(package(given.run, given.to))
        else:
            write_random_model(given.like, given.out, given.layers)
            print(given.out)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
