"""Where in its answer a token stands."""

from __future__ import annotations

import torch
from torch import Tensor

from viker_lightning.models import AnswerTokens


def places(tokens: AnswerTokens) -> Tensor:
    """``[T]`` place of each token in its answer, from 0; the tokens of an answer stand together."""
    lengths = torch.bincount(tokens.question, minlength=tokens.n_questions)
    starts = lengths.cumsum(0) - lengths
    return torch.arange(len(tokens.question), device=starts.device) - starts[tokens.question]
