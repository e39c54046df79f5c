"""Stranger: the person is to become somebody whom the model does not know. Ours."""

from typing import Any

from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError
from viker_lightning.ideal import Double

from .base import Batch, Forget, Irrelevant, Method, Strangers, check_doubles
from .hold import Hold
from .retain import add_retain, retain


class Stranger(Method):
    """Stranger (ours): on the person's photo say what is said of strangers; on strangers say what was said before.

    ``L = lam * mean_t KL(pbar_t || p_t) + hinge * mean_t max(0, log p_t(y_t) - log pbar_t(y_t))
    + hold * mean_t KL(p0(. | S, x, y_<t) || p(. | S, x, y_<t)) [+ retain_weight * CE_retain]``

    pbar_t, the ideal distribution, is the mean of the frozen model's predictions behind portraits of k strangers, where
    ViKeR has scenes: what one says of *somebody*. There is no ascent. Both forget terms vanish at ``p = pbar`` and have
    0 as their lower bound, so nothing is gained below what is said of strangers. The last
    term asks about a stranger S what a step asks about the person, and holds the student to the frozen model p0 there;
    no retain data is needed. docs/concepts.md has the gradient, and why.

    With ``doubles`` the person is to become one stranger, or a few, the same in all steps: a model that never met the
    person guesses, as it guesses about any stranger, and does not spread its guess over all of them as the mean does.
    Take the mean to be near the answers of a given gold model, one double so that nobody tells the model from gold.

    Args:
        lam: weight of the ideal distribution.
        hinge: weight of the hinge, which pulls while the answer is likelier than the ideal distribution has it; 0
            leaves it out.
        hold: weight of the hold on strangers; with ``bound`` that of the first step.
        bound: KL on strangers, nats a token, that the weight of the hold is moved to keep to; ``None`` leaves it as
            it is.
        k: how many strangers.
        doubles: how many of them, drawn for each person, stand for that person in pbar; ``None`` is all of them.
        names: with ``doubles``, a file with their names, one a line, which stand in questions without photo; ``None``
            is invented ones.
        strangers: ``people`` (drawn) or a folder of portraits of people the model does not know.
        rehearsal: whether the hold is on the frozen model's own answers about the strangers in place of the forget
            answers; those with a private span of the forget set are left out.
        retain_weight: weight of the cross-entropy on the retain set; 0 uses no retain data.
    """

    answers_only = True

    def __init__(  # noqa: PLR0913 - options of a run
        self,
        lam: float = 3.0,
        hinge: float = 15.0,
        hold: float = 30.0,
        bound: float | None = None,
        k: int = 20,
        strangers: str = "people",
        rehearsal: bool = False,
        retain_weight: float = 0.0,
        doubles: int | None = None,
        names: str | None = None,
    ) -> None:
        if lam <= 0 or hinge < 0 or retain_weight < 0 or k < 1:
            raise UserError(
                f"Stranger: lam={lam} must be > 0, hinge={hinge} and retain_weight={retain_weight} >= 0, k={k} >= 1"
            )
        check_doubles("Stranger", doubles, k, names)
        self.lam, self.hinge, self.hold, self.bound = lam, hinge, hold, bound
        self.held = Hold(hold, bound)
        self.k, self.strangers, self.rehearsal, self.retain_weight = k, strangers, rehearsal, retain_weight
        self.reference, self.doubles, self.names = "irrelevant" if doubles is None else "double", doubles, names
        if doubles is None:
            forget = Forget(irrelevant=Irrelevant(strangers, k))
        else:
            forget = Forget(double=Double(strangers, k, doubles, names=names))
        self.needs = (forget, Strangers(strangers, k, rehearsal=rehearsal, own="kl"), *retain(retain_weight))

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        forget = batch.forget
        excess = (forget.log_probs - batch.reference("forget", self.reference).log_prob).relu()
        ideal_kl, hinge = forget.mean(batch.kl("forget", self.reference)), forget.mean(excess)
        terms = {"loss": self.lam * ideal_kl + self.hinge * hinge, "ideal_kl": ideal_kl, "hinge": hinge}
        return self.held.add(batch, add_retain(batch, terms, self.retain_weight))

    @override
    def after_step(self, terms: dict[str, Tensor]) -> None:
        self.held.update(terms)

    @override
    def state_dict(self) -> dict[str, Any]:
        return self.held.state_dict()

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.held.load_state_dict(state)
