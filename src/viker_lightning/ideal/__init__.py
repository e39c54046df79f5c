"""The ideal distribution: what the frozen model says of an answer when it sees irrelevant images instead."""

from .key_tokens import key_token_example, key_token_report
from .prefix import ImagePrefixes
from .reference import (
    Reference,
    forward_kl,
    mean_distribution,
    reduce_distribution,
    reference_of,
    token_kl,
)
from .store import IdealDistribution

__all__ = [
    "IdealDistribution",
    "ImagePrefixes",
    "Reference",
    "forward_kl",
    "key_token_example",
    "key_token_report",
    "mean_distribution",
    "reduce_distribution",
    "reference_of",
    "token_kl",
]
