"""``python -m viker_lightning chat RUN``: ask the models of a run, side by side. See ``--help``."""

import argparse
import contextlib
import os
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from viker_lightning import look_here_last
from viker_lightning.errors import UserError
from viker_lightning.terminal.commands import program

from .address import HERE, bind

QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""What Gradio and what it brings read when they are imported."""


def main(arguments: list[str] | None = None) -> None:
    """The command line; errors a user can fix end in one line and exit code 1."""
    given = parser().parse_args(arguments)
    os.environ.update(QUIET)
    from viker_lightning.terminal.failures import ending_in_one_line  # brings Lightning, which --help need not wait for
    from viker_lightning.terminal.quiet import quieten

    look_here_last()
    quieten()
    with ending_in_one_line():
        chat(given)


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = argparse.ArgumentParser(
        prog=f"{program()} chat",
        description="Opens a page on this machine, and no other, on which one asks the models of a run about a photo.",
        epilog="Needs Gradio: pip install -e '.[chat]' in the repository. Ctrl-C ends it.",
    )
    add = made.add_argument
    add("run", type=Path, help="folder of a finished unlearning run")
    add("--gold", help="run folder, model folder or hub id of the gold model, which answers beside the others")
    add("--vanilla", help="the same of the model before unlearning, where it is no longer where the run found it")
    add("--port", type=int, default=7860, help="of the page; 0 takes any that is free")
    add("--trust_remote_code", action="store_true", help="let code that comes with the weights run")
    add("--family", help="class path of the models' family, where this package has none for it")
    return made


def chat(given: argparse.Namespace) -> None:
    """Loads data and models, and serves the page until it is stopped."""
    if find_spec("gradio") is None:
        raise UserError("chat needs Gradio; pip install -e '.[chat]' in the repository")
    if not given.run.is_dir():
        raise UserError(f"{given.run}: is no folder; give that of a finished unlearning run")
    with bind(given.port) as bound, TemporaryDirectory(prefix="viker-lightning-chat-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # a picture that is uploaded is a file for as long as the page is there
        from viker_lightning.models import Weights
        from viker_lightning.models.families import import_family
        from viker_lightning.training.finished import FinishedRun

        from .album import album
        from .desk import Desk
        from .speakers import load_speakers

        run = FinishedRun.open(given.run)
        weights = Weights(trust_remote_code=given.trust_remote_code, family=import_family(given.family))
        desk = Desk(load_speakers(run, weights, given.gold, given.vanilla), album(run.data()))

        from .gradio_page import page, server

        serving = server(page(desk, f"Ask {given.run.resolve().name}"))
        print(f"http://{HERE}:{bound.getsockname()[1]} shows the page; Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            serving.run(sockets=[bound])


if __name__ == "__main__":
    main()
