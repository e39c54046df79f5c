"""What a run left behind: its data, its budgets, its model; and models that lie in a folder or on a hub alone."""

import importlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Self

from filelock import FileLock

from viker_lightning.data.datasets.base import Benchmark
from viker_lightning.errors import UserError, say
from viker_lightning.models import MLLM, Weights, load_adapted, revision_of, write_merged
from viker_lightning.models.adapter import adapter_config
from viker_lightning.models.mllm import MAX_SEQUENCE_TOKENS, MAX_TOKENS
from viker_lightning.models.rounding import SHARES
from viker_lightning.models.weight_files import folder_fingerprint, identify_weights
from viker_lightning.storage.cache import cache_folder, damage, note_checksums
from viker_lightning.storage.runs import Run, names, read_run, weights_folder

log = logging.getLogger(__name__)


class FinishedRun(Run):
    """A finished run, from which data and models can be had again as the run had them."""

    @classmethod
    def open(cls, folder: str | Path, option: str = "") -> Self:
        """Reads a run folder, as :func:`~viker_lightning.storage.runs.read_run` does."""
        return cls(Path(folder), read_run(folder, option).results)

    @classmethod
    def holding(cls, source: str) -> Self | None:
        """The run that a folder is, or that its weights lie in; ``None`` for other weights.

        Raises:
            UserError: if it is a run that is not finished.
        """
        here = Path(source)
        inside = here.name in (names.ADAPTER, names.MODEL, names.MERGED) and (here.parent / names.PROVENANCE).is_file()
        folder = here.parent if inside else here
        is_run = (folder / names.CONFIG).is_file() and (folder / names.PROVENANCE).is_file()
        return cls.open(folder) if source and is_run else None

    @property
    def dtype(self) -> str:
        """Of the weights while it ran."""
        return self.provenance.get("dtype", "float32")

    @property
    def budgets(self) -> tuple[int, int]:
        """Most tokens of one packed sequence, and of all that pass the model together."""
        engine = self.option("model.init_args.engine", {})
        return engine.get("max_sequence_tokens", MAX_SEQUENCE_TOKENS), engine.get("max_tokens", MAX_TOKENS)

    def data(self) -> Benchmark:
        """Its data, set up for unlearning.

        Their class is imported from what is installed, or from beside the command, as ``fit`` does. Code that lies in a
        run folder is not run: somebody may have been handed the folder, and has not asked for more than its numbers.

        Raises:
            UserError: if its config names none that can be made, or a class whose code lies in a run folder.
        """
        path, options = self.option("data.class_path", ""), self.option("data.init_args", {})
        module, _, name = path.rpartition(".")
        self._refuse_code_of_a_run(module)
        try:
            kind = getattr(importlib.import_module(module), name)
            if not (isinstance(kind, type) and issubclass(kind, Benchmark)):  # before anything is called
                raise TypeError("is no subclass of viker_lightning.data.datasets.Benchmark")
            made = kind(**options | {"stage": "unlearn"})
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.folder}: its config.yaml names data that cannot be read ({path}: {error}); install what has "
                "the class or put it beside the command, or let an attack take the data of another run with --data_of"
            ) from error
        made.prepare_data()
        made.setup()
        return made

    def _refuse_code_of_a_run(self, module: str) -> None:
        """Refuses a module if it or a package it is in lies in a run folder; it is found without importing anything."""
        places: Sequence[str] | None = None
        for part in module.split("."):
            spec = PathFinder.find_spec(part, places)  # by its last name, in the places of its package
            if spec is None:
                return
            places = [*(spec.submodule_search_locations or [])]
            files = [Path(one).resolve() for one in ([spec.origin] if spec.has_location and spec.origin else places)]
            for folder in {parent for file in files for parent in (file, *file.parents)}:
                if folder == self.folder.resolve() or (folder / names.PROVENANCE).is_file():
                    raise UserError(
                        f"{self.folder}: its config.yaml names data whose code lies in a run folder ({files[0]}), "
                        "which is not run; read it, and if you trust it, copy it beside the command and change "
                        "data.class_path"
                    )

    def check_protocol(self) -> None:
        """Makes sure that it was asked and scored as commands on finished runs ask and score.

        Under another protocol template, blind questions and letters are not those: what comes out would say nothing of
        its own scores.
        """
        protocol = self.option("data.init_args.protocol", "corrected")
        if protocol != "corrected":
            raise UserError(
                f"{self.folder}: was made under the {protocol} protocol, but is asked the corrected way here; make it, "
                "and whatever it is compared with, with --data.protocol corrected"
            )

    @property
    def data_fingerprint(self) -> str | None:
        """Of its data and forget set, as it was noted."""
        return self.provenance.get("data", {}).get("fingerprint")

    def check_data(self, fingerprint: str | None, other: Run, option: str = "") -> None:
        """Refuses it, by the option that names it, if another run has other data, as far as both noted that."""
        if fingerprint and self.data_fingerprint and fingerprint != self.data_fingerprint:
            where = f"{option}: " if option else ""
            raise UserError(
                f"{where}{self.folder} was made on other data or another forget set than {other.folder}; give runs of "
                "the same data"
            )

    def at_base(self, weights: Weights, base: str | None, option: str) -> Weights:
        """How to load the model again that it began with: at the revision that it read, unless another place is named.

        Args:
            weights: as the command says; whether code that comes with the model may run is not for a folder to say.
            base: where its model is now; ``None`` for where the run found it.
            option: that says so, for the message.

        Raises:
            UserError: if the run does not say what it began with, needs code that is not trusted, or began with other
                weights than those given; where that cannot be told, a warning says so.
        """
        made, file = self.provenance, self.folder / names.PROVENANCE
        source = made.get("base_weights")
        if not source:
            raise UserError(f"{file}: does not say what model the run began with; run it again")
        if made.get("trust_remote_code") and not weights.trust_remote_code:
            raise UserError(
                f"{file}: the run let code that comes with {source} run; if you trust it, add --trust_remote_code"
            )
        if base is None or base == source:
            return replace(weights, revision=revision_of(source, made.get("base_commit"), made.get("base_revision")))
        there = identify_weights(base)
        known = [kind for kind in ("commit", "fingerprint") if there[kind] and made.get(f"base_{kind}")]
        if not known:
            log.warning("%s: whether %s is what %s began with (%s) cannot be told", option, base, self.folder, source)
        elif all(there[kind] != made[f"base_{kind}"] for kind in known):
            raise UserError(
                f"{option}: {base} is not the model that {self.folder} began with, which was {source}; give that one"
            )
        return weights


def run_folder_of(source: str | Path) -> Path:
    """The folder of the finished run that weights lie in, or ``source`` itself."""
    here = Path(source)
    inside = here.name in (names.ADAPTER, names.MODEL, names.MERGED) and names.is_finished(here.parent)
    return here.parent if inside else here


def adapter_of(source: str | Path) -> Path | None:
    """The folder of an adapter: ``source`` itself, or what a run left there; ``None`` for full weights."""
    here = Path(source)
    folder = here if any(here.glob("adapter_*")) else here / names.ADAPTER
    return folder if any(folder.glob("adapter_*")) and not (here / names.MODEL).is_dir() else None


def config_source(source: str) -> str:
    """Where the config.json of a model is: of a run, an adapter, full weights, or on the hub."""
    adapter = adapter_of(source)
    if adapter is not None and not (Path(source) / names.MERGED).is_dir():
        return str(adapter_config(adapter).get("base_model_name_or_path"))
    return str(weights_folder(source))


def load_as_left(source: str, weights: Weights = Weights(), base: str | None = None) -> MLLM:
    """A model as a run left it, frozen, with any adapter beside it: of a run, an adapter, full weights, or on the hub.

    ``base`` is the model an adapter was made on, where it is not where the adapter says it was.
    """
    adapter = adapter_of(source)
    if adapter is None:
        return MLLM.load(str(weights_folder(source)), weights).requires_grad_(False)
    if adapter != Path(source):
        names.check_finished(source)
    return load_adapted(adapter, weights, base)


def unlearned_model(vanilla: str, weights: Weights = Weights()) -> str:
    """What an unlearning run has left, as full weights, so that another one can go on from it.

    That is for the folder of an unlearning run with LoRA, or its ``adapter/``. Where such a run has no ``merged/``, its
    adapter is added to its model, once, in the cache folder. Anything else is returned as it is.
    """
    run = Path(vanilla).parent if Path(vanilla).name == names.ADAPTER else Path(vanilla)
    if not (run / names.ADAPTER).is_dir() or (run / names.MODEL).is_dir():
        return vanilla
    names.check_finished(run)
    return str(run / names.MERGED) if (run / names.MERGED).is_dir() else merged_adapter(run / names.ADAPTER, weights)


def merged_adapter(adapter: Path, weights: Weights = Weights()) -> str:
    """Folder of the model that an adapter says it was made on, with it added, in float32, once, in the cache folder."""
    merged = cache_folder("merged", str(folder_fingerprint(adapter))[:12])
    merged.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{merged}.lock"):
        if damage(merged, SHARES):  # one of an earlier version has none
            say(f"{adapter}: this adapter is added to its model (once), in {merged}")
            write_merged(adapter, merged, replace(weights, dtype="float32", revision=None))
            note_checksums(merged)
    return str(merged)
