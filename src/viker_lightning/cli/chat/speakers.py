"""Who answers: vanilla, the unlearned model and gold, each loaded once."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path

import torch

from viker_lightning.attacks.material import check_protocol
from viker_lightning.data.records import Picture
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, load_adapted, revision_of_base
from viker_lightning.models.families import Family
from viker_lightning.models.mllm import MAX_SEQUENCE_TOKENS, MAX_TOKENS
from viker_lightning.storage.runs import Run, names, read_run, weights_folder
from viker_lightning.training.vanilla import unlearned_model

from .spoken_tokens import Token, say

log = logging.getLogger(__name__)

VANILLA, GOLD = "Vanilla", "Gold"


@dataclass
class Speakers:
    """The models that are asked, one question at a time.

    Attributes:
        name: what the unlearned model is called.
        unlearned: the model of the run.
        vanilla: the model before; ``None`` if it is the unlearned one with its adapter off.
        gold: the model that never met the people to forget, if there is one.
        max_new_tokens: where an answer ends at the latest.
    """

    name: str
    unlearned: MLLM
    vanilla: MLLM | None
    gold: MLLM | None
    max_new_tokens: int
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def names(self) -> list[str]:
        """Of everybody who answers, in order."""
        return [VANILLA, self.name, *([GOLD] if self.gold is not None else [])]

    def answer(self, picture: Picture | None, question: str) -> dict[str, list[Token]]:
        """What everybody says, token by token, by name.

        Args:
            picture: what is asked about, if anything.
            question: in any words.

        Raises:
            UserError: as :func:`~viker_lightning.cli.chat.spoken_tokens.say` does.
        """
        with self._turn, torch.no_grad():
            before = self.unlearned if self.vanilla is None else self.vanilla
            with before.frozen():  # takes its adapter off, if it has one
                found = {VANILLA: say(before, picture, question, self.max_new_tokens)}
            found[self.name] = say(self.unlearned, picture, question, self.max_new_tokens)
            if self.gold is not None:
                found[GOLD] = say(self.gold, picture, question, self.max_new_tokens)
        return found


def load_speakers(
    run: Run,
    gold: str | None = None,
    vanilla: str | None = None,
    trust_remote_code: bool = False,
    family: Family | None = None,
) -> Speakers:
    """Loads the models of a finished unlearning run to the first GPU, if there is one.

    A run that trained an adapter has one model: with the adapter off, it is the vanilla one.

    Args:
        run: the run.
        gold: run folder, model folder or hub id of the gold model.
        vanilla: the same of the vanilla model, where it is no longer where the run found it.
        trust_remote_code: whether code that comes with the weights may run.
        family: the models' family, where this package has none for it.

    Raises:
        UserError: if it is no unlearning run, it or gold was made under another protocol, a model is not found, needs
            code that is not trusted or is not the one that the run began with, or gold is of other data or another base
            model.
    """
    made = run.provenance
    if not made.get("method"):
        raise UserError(
            f"{run.folder}: is no unlearning run ({run.method}); give one that has forgotten people, and this one as "
            "--gold if it is its gold model"
        )
    revision = revision_of_base(run, vanilla, "--vanilla", trust_remote_code)
    for one in filter(None, (run, None if gold is None else _gold_run(gold))):
        check_protocol(one, "this page asks the corrected way alone", "run and gold")
        _check_same_data(run, one, gold)
        if quantize := one.provenance.get("quantize"):
            log.warning(
                "%s: was trained and evaluated with quantize=%s and answers here without, not always as there",
                one.folder,
                quantize,
            )
    dtype = made.get("dtype", "float32")
    source = vanilla or made["base_weights"]
    try:
        before = None
        if (run.folder / names.ADAPTER).is_dir():
            base = str(weights_folder(source))
            unlearned = load_adapted(run.folder / names.ADAPTER, dtype, base, revision, trust_remote_code, family)
        else:
            unlearned = MLLM.load(run.folder / names.MODEL, dtype, None, trust_remote_code, None, family)
            before = MLLM.load(source, dtype, revision, trust_remote_code, None, family)
    except UserError as error:
        raise UserError(
            f"{error} (--vanilla names the vanilla model of {run.folder}, should it be elsewhere)"
        ) from error
    engine = run.option("model.init_args.engine", {})
    budgets = engine.get("max_sequence_tokens", MAX_SEQUENCE_TOKENS), engine.get("max_tokens", MAX_TOKENS)
    for mllm in (unlearned, *([before] if before is not None else [])):
        mllm.requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu").eval()
        mllm.set_budgets(*budgets)
    other = None
    if gold is not None:
        other = unlearned.beside(unlearned_model(gold, trust_remote_code, family), dtype, "--gold")
    longest = run.option("evaluation.max_new_tokens", 50)
    return Speakers(f"Unlearned ({run.method})", unlearned, before, other, longest)


def _gold_run(gold: str) -> Run | None:
    """The run that gold is, or that its weights lie in; ``None`` for other weights.

    Raises:
        UserError: if it is not finished.
    """
    given = Path(gold)
    folder = given.parent if given.name in (names.ADAPTER, names.MODEL, names.MERGED) else given
    return read_run(folder) if (folder / names.CONFIG).is_file() and (folder / names.PROVENANCE).is_file() else None


def _check_same_data(run: Run, other: Run, gold: str | None) -> None:
    """Makes sure that gold is of the same data."""
    own, others = (one.provenance.get("data", {}).get("fingerprint") for one in (run, other))
    if own and others and own != others:
        raise UserError(
            f"--gold: {gold} was made on other data or another forget set than {run.folder}; give the gold run of the "
            "same data"
        )
