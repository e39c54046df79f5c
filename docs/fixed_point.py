"""Draws fixed_point.png: where a token's probability ends under gradient descent on free logits.

python docs/fixed_point.py
"""

from pathlib import Path

import matplotlib as mpl
import torch

mpl.use("Agg")
import matplotlib.pyplot as plt

STEPS, RATE, WORDS = 1500, 0.1, 50


def end(ideal: float, lam: float, ascent: bool) -> float:
    """Probability of the answer token in the end, from .9; the ideal distribution gives it ``ideal``."""
    p = torch.full((WORDS,), (1 - ideal) / (WORDS - 1))
    p[0] = ideal
    logits = torch.zeros(WORDS)
    logits[0] = torch.tensor(9.0 * (WORDS - 1)).log()
    logits.requires_grad_()
    for _ in range(STEPS):
        log_q = logits.log_softmax(-1)
        kl = (p * (p.log() - log_q)).sum()
        pull = log_q[0] if ascent else 3 * (log_q[0] - p[0].log()).relu()
        (gradient,) = torch.autograd.grad(lam * kl + pull, logits)
        logits.data -= RATE * gradient
    return logits.softmax(-1)[0].item()


def main() -> None:
    """Draws the picture beside this file."""
    shares = [i / 20 for i in range(1, 20)]
    figure, axis = plt.subplots(figsize=(5, 3.6), dpi=110)
    for lam, shade in ((1, "#9ecae1"), (3, "#4292c6"), (10, "#08519c")):
        axis.plot(shares, [end(p, lam, True) for p in shares], color=shade, label=f"ViKeR, λ = {lam}")
    axis.plot(shares, [end(p, 3, False) for p in shares], color="#d94801", lw=2, label="Stranger")
    axis.plot([0, 1], [0, 1], color="0.6", lw=0.8, ls=":")
    axis.set(xlabel="ideal probability of the answer token", ylabel="where the student ends", xlim=(0, 1), ylim=(0, 1))
    axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
