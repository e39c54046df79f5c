"""Who answers: vanilla, the unlearned model and gold, each loaded once."""

import logging
import threading
from dataclasses import dataclass, field, replace

import torch

from viker_lightning.data.records import Picture
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, Weights, load_adapted
from viker_lightning.storage.runs import names, weights_folder
from viker_lightning.training.finished import FinishedRun, unlearned_model

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
        """What everybody says, token by token, by name."""
        with self._turn, torch.no_grad():
            before = self.unlearned if self.vanilla is None else self.vanilla
            with before.frozen():  # takes its adapter off, if it has one
                found = {VANILLA: say(before, picture, question, self.max_new_tokens)}
            found[self.name] = say(self.unlearned, picture, question, self.max_new_tokens)
            if self.gold is not None:
                found[GOLD] = say(self.gold, picture, question, self.max_new_tokens)
        return found


def load_speakers(
    run: FinishedRun, weights: Weights = Weights(), gold: str | None = None, vanilla: str | None = None
) -> Speakers:
    """Loads the models of a finished unlearning run to the first GPU, if there is one.

    A run that trained an adapter has one model: with the adapter off, it is the vanilla one.
    """
    made = run.provenance
    if not made.get("method"):
        raise UserError(
            f"{run.folder}: is no unlearning run ({run.method}); give one that has forgotten people, and this one as "
            "--gold if it is its gold model"
        )
    weights = replace(weights, dtype=run.dtype)
    of_base = run.at_base(weights, vanilla, "--vanilla")
    for one in filter(None, (run, None if gold is None else FinishedRun.holding(gold))):
        one.check_protocol()
        one.check_data(run.data_fingerprint, run, "--gold")
        if quantize := one.provenance.get("quantize"):
            log.warning(
                "%s: was trained and evaluated with quantize=%s and answers here without, not always as there",
                one.folder,
                quantize,
            )
    source = vanilla or made["base_weights"]
    try:
        before = None
        if (run.folder / names.ADAPTER).is_dir():
            unlearned = load_adapted(run.folder / names.ADAPTER, of_base, str(weights_folder(source)))
        else:
            unlearned, before = MLLM.load(run.folder / names.MODEL, weights), MLLM.load(source, of_base)
    except UserError as error:
        raise UserError(
            f"{error} (--vanilla names the vanilla model of {run.folder}, should it be elsewhere)"
        ) from error
    for mllm in (unlearned, *([before] if before is not None else [])):
        mllm.requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu").eval()
        mllm.set_budgets(*run.budgets)
    other = None
    if gold is not None:
        other = unlearned.beside(unlearned_model(gold, weights), weights.dtype, "--gold")
    longest = run.option("evaluation.max_new_tokens", 50)
    return Speakers(f"Unlearned ({run.method})", unlearned, before, other, longest)
