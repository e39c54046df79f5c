"""Scores of one answer (pure functions) and their means over a data set (torchmetrics classes)."""

from __future__ import annotations

from .aligned import AlignedAccuracy, AlignedRouge, aligned_rouge
from .bleu import CorpusBleu, sacrebleu_signature
from .classes import (
    Accuracy,
    AnswerProbability,
    BleuMLLMU,
    Cloze,
    ExactMemorization,
    ExtractionStrength,
    KeywordMatch,
    KeywordMatchWhole,
    Repetition,
    RougeL,
    RougeLRecall,
    RougeN,
)
from .coherence import Coherence, bits_per_character, coherence, distinct_3, usual_bits
from .gibberish import Gibberish, GibberishClassifier
from .gold import ForgetQuality, JSSimilarity, forget_quality, js_similarity
from .likelihood import answer_probability, exact_memorization, extraction_strength, own_tokens
from .mean import Mean
from .membership import log_prob_moments, loss_score, min_k, min_k_plus_plus, reference_score, zlib_score
from .prediction import Prediction
from .ranking import Exposure, MembershipAUROC, auroc, distance_to_gold, exposure, key_token_auroc
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
from .truth import OptionProbability, TruthRatio, likeliest_option, option_probability, truth_ratio, truth_ratio_score
from .utility import ModalityGap, model_utility

__all__ = [
    "REFUSALS",
    "Accuracy",
    "AlignedAccuracy",
    "AlignedRouge",
    "AnswerProbability",
    "BleuMLLMU",
    "Cloze",
    "Coherence",
    "CorpusBleu",
    "ExactMemorization",
    "Exposure",
    "ExtractionStrength",
    "ForgetQuality",
    "Gibberish",
    "GibberishClassifier",
    "JSSimilarity",
    "KeywordMatch",
    "KeywordMatchWhole",
    "Mean",
    "MembershipAUROC",
    "ModalityGap",
    "OptionProbability",
    "Prediction",
    "Repetition",
    "RougeL",
    "RougeLRecall",
    "RougeN",
    "TruthRatio",
    "aligned_rouge",
    "answer_probability",
    "auroc",
    "bits_per_character",
    "bleu_mllmu",
    "choice_correct",
    "cloze_correct",
    "coherence",
    "distance_to_gold",
    "distinct_3",
    "exact_memorization",
    "exposure",
    "extraction_strength",
    "forget_quality",
    "is_refusal",
    "js_similarity",
    "key_token_auroc",
    "keyword_match",
    "keyword_match_whole",
    "likeliest_option",
    "log_prob_moments",
    "loss_score",
    "min_k",
    "min_k_plus_plus",
    "model_utility",
    "option_probability",
    "own_tokens",
    "reference_score",
    "repetition",
    "rouge_l",
    "rouge_n",
    "sacrebleu_signature",
    "span_parts",
    "truth_ratio",
    "truth_ratio_score",
    "usual_bits",
    "zlib_score",
]
