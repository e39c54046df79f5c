"""What a run has done, in one line."""

from collections.abc import Mapping, Sequence
from typing import Any

CLOSE, POOR = 0.05, 0.1
"""So far from gold, or below vanilla, is the same yet; so much less well formed is broken."""


def verdict(cards: Sequence[Mapping[str, Any]]) -> str:
    """Says whether a run has forgotten and what it broke, and the numbers that say so.

    It has forgotten as gold if what is known of the forget set is at most :data:`CLOSE` from gold's. Broken is another
    set of which more than that of vanilla's knowledge is lost, and are answers that are well formed less often than
    gold's by :data:`POOR` (than vanilla's where there is no gold).

    Args:
        cards: numbers from 0 to 1, that of the forget set first: ``about`` (``known`` or ``form``; others are left
            out), ``name``, and ``of``, its value of ``run`` and perhaps of ``gold`` and ``vanilla``.
    """
    known, form = ({c["name"]: c["of"] for c in cards if c["about"] == about} for about in ("known", "form"))
    forget, *kept = known
    off = _more(known[forget], "gold")
    broken = [name for name in kept if (_more(known[name], "vanilla") or 0) < -CLOSE]
    broken += [name for name, of in form.items() if (_more(of, "gold" if "gold" in of else "vanilla") or 0) <= -POOR]
    if off is None:
        told = "Without gold nobody can say whether it forgot enough"
    elif abs(off) > CLOSE:
        told = "Forgot too little" if off > 0 else "Knows less of the forget set than gold, which is no better"
    else:
        told = "Forgot" if broken else "Forgotten as gold"
    told += f", but broke other answers ({', '.join(broken)})" if broken else ""
    told += "" if any("vanilla" in known[name] for name in kept) else "; without vanilla nobody can say what was lost"
    shown = [f"{name} {of['run']:.2f}{_beside(of)}" for name, of in (known | form).items()]
    return f"{told}. Still known: {', '.join(shown[: len(known)])}{'; '.join(['', *shown[len(known) :]])}."


def _more(of: Mapping[str, float], than: str) -> float | None:
    return round(of["run"] - of[than], 3) if than in of else None


def _beside(of: Mapping[str, float]) -> str:
    found = ", ".join(f"{model} {of[model]:.2f}" for model in ("gold", "vanilla") if model in of)
    return f" ({found})" if found else ""
