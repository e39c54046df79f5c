"""Scores of answers: pure functions, and the table that says what each number is (`scores.py`)."""

from .aligned import aligned_correct, aligned_rouge
from .bleu import corpus_bleu, sacrebleu_signature
from .coherent import bits_per_character, coherence, distinct_3, usual_bits
from .gold import forget_quality, forgotten_answers, js_similarity
from .likelihood import answer_probability, exact_memorization, extraction_strength
from .membership import log_prob_moments, loss_score, min_k, min_k_plus_plus, reference_score, zlib_score
from .prediction import FORGOTTEN, KEPT, OVERALL, SPLITS, Prediction, by_split
from .ranking import auroc, distance_to_gold, exposure, key_token_auroc
from .scores import (
    KNOWLEDGE,
    NUMBERS,
    SECTIONS,
    SIGNS,
    Number,
    Score,
    SplitScore,
    Values,
    collect,
    load_scores,
    measure,
    read_numbers,
)
from .split_answers import SplitAnswers
from .text import (
    REFUSALS,
    bleu_mllmu,
    choice_correct,
    cloze_correct,
    is_refusal,
    keyword_match,
    keyword_match_whole,
    repetition,
    rouge_l,
    rouge_n,
    span_parts,
)
from .truth import likeliest_option, option_probability, truth_ratio, truth_ratio_score, truth_ratios
from .utility import modality_gap, model_utility
