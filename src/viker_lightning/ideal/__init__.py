"""The ideal distribution: what the frozen model says of an answer when it sees irrelevant images instead."""

from .distribution import IdealDistribution, why_not_reduced
from .doubles import Double, Doubles
from .key_entropy import key_token_example, key_token_report, key_tokens
from .noised import Noised, add_noise
from .own_answers import OwnAnswers
from .own_reference import OwnReference
from .pictures import choose_pictures, clip_filter, pictures_of
from .prefix import ImagePrefixes
from .reference import (
    Level,
    Reference,
    forward_kl,
    mean_distribution,
    output_weight,
    reduce_distribution,
    reference_of,
    statistics_of,
    token_kl,
)
from .references import References
from .store import ReferenceStore, reference_key, store_folder
