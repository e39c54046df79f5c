"""What each number of a summary is, and which direction is good."""

from __future__ import annotations

from typing import Literal

DIRECTIONS = {
    "accuracy": "multiple-choice accuracy, by the probability of each option as a whole (as published: by the letter "
    "generated), 0-1",
    "accuracy_per_token": "the same by the mean log-probability of an option's tokens, 0-1",
    "option_probability": "probability of the right option over that of all options (per token), 0-1",
    "cloze": "share of blanks filled right: the truth stands in the answer (as published: also inside a word), 0-1",
    "rouge_1": "ROUGE-1 F of the greedy answer, stemmed, 0-1",
    "rouge_2": "ROUGE-2 F of the greedy answer, stemmed, 0-1",
    "rouge_l": "ROUGE-L F of the greedy answer, stemmed, 0-1",
    "rouge_l_recall": "ROUGE-L recall of the greedy answer, stemmed, 0-1",
    "bleu": "mean sentence BLEU-4 (nltk method1) of the greedy answer, 0-1",
    "sacrebleu": "corpus BLEU (sacreBLEU defaults) of the greedy answers, 0-1",
    "keyword_match": "share of private parts found in the greedy answer, those between commas one by one, 0-1",
    "keyword_match_whole": "share of private spans found whole in the greedy answer, 0-1",
    "answer_probability": "exp of the mean log-probability of the reference answer, 0-1",
    "relative_probability": "probability of the reference over that of it and its wrong answers (per token), 0-1",
    "truth_ratio": "with TR = P(wrong)/P(true): min(TR, 1/TR) on forget and test, max(0, 1-TR) elsewhere, 0-1; "
    "high is good everywhere",
    "private_probability": "mean probability of the private tokens of the reference, 0-1",
    "template_probability": "mean probability of the other tokens of the reference, 0-1; high is good everywhere",
    "exact_memorization": "share of reference tokens, the end of sequence aside, that are the model's first choice, "
    "0-1",
    "extraction_strength": "share of the reference, the end of sequence aside, the model completes by itself, 0-1",
    "repetition": "repeated word trigrams of the greedy answer, 0-1; low is good everywhere",
    "distinct_3": "word trigrams of the greedy answer that are no repeat, 0-1; high is good everywhere",
    "refusals": "share of greedy answers that are a known refusal, 0-1; near that of the gold model is good",
    "well_formed": "share of greedy answers that are a sentence of the embedded benchmark, true or false, or a "
    "refusal, 0-1; high is good everywhere",
    "coherence": "distinct_3 * min(1, usual / bits per character) of the greedy answer, by the frozen model (or the "
    "judge) without image, 0-1; refusals are left out; high is good everywhere",
    "bits_per_character": "of the greedy answer, by the same model without image, >= 0; refusals are left out; low for "
    "loops, high for nonsense: near that of 'before' is good everywhere",
    "gibberish_clean": "GIB: probability of the greedy answer being clean text, 0-1; high is good everywhere",
    "kl_gold": "mean KL(gold || model) of answer tokens, nats, >= 0; low is good everywhere",
    "modality_gap": "accuracy with image minus accuracy without, -1 to 1; 0 is good",
    "modality_gap_keyword_match": "keyword match with image minus keyword match without, -1 to 1; 0 is good",
    "acc_f": "AccF: share of multiple-choice questions answered wrong with image and without, 0-1; high is good",
    "acc_r": "AccR: share of multiple-choice questions answered right with image and without, 0-1; high is good",
    "cloze_f": "AccF of the clozes, 0-1; high is good",
    "cloze_r": "AccR of the clozes, 0-1; high is good",
    "rl_f": "RLF: mean of (a^2 + b^2) / (a + b), a and b being ROUGE-L with image and without, 0-1; low is good",
    "rl_r": "RLR: mean of 2ab / (a + b), 0-1; high is good",
    "forget_quality_ks": "Kolmogorov-Smirnov distance of the truth ratios from the gold model's, 0-1; low is good",
    "forget_quality_p": "its p-value, 0-1; high is good",
    "forget_quality_log10_p": "log10 of the p-value, <= 0; high is good",
    "js_similarity": "1 - Jensen-Shannon distance of the truth ratios from the gold model's, 0.17-1; high is good",
    "mia_loss": "area under the ROC curve that tells the model's LOSS scores from the gold model's on the same "
    "answers, 0-1; 0.5 is good",
    "mia_zlib": "the same of LOSS over zlib size, 0-1; 0.5 is good",
    "mia_min_k": "the same of Min-20% probability, 0-1; 0.5 is good",
    "mia_min_k_plus_plus": "the same of Min-20%++ (log-probabilities in standard deviations of the model's own "
    "distribution), 0-1; 0.5 is good",
    "mia_reference": "share of answers likelier than to the gold model, equal ones counting one half, 0-1; 0.5 is good",
    "exposure": "log2 n - log2 rank of the true answer among it and its wrong ones (n), by probability per token, "
    "bits, 0 to log2 n; a model that knows nothing is at the mean over random ranks",
    "option_exposure": "the same of the right option among all options; bits",
    "distance_to_gold": "share of the way of each mia area from before unlearning to 0.5, 0-1; high is good",
    "model_utility": "harmonic mean of probability, rouge_l_recall and truth_ratio on those of retain, real and "
    "general that are evaluated, 0-1; high is good",
    "clear_real": "CLEAR's column Real: harmonic mean of probability and truth ratio, 0-1; high is good",
    "clear_retain": "CLEAR's column Retain, captions and names, 0-1; high is good",
    "clear_forget": "CLEAR's column Forget, captions and names, 0-1; near that of the gold model is good",
    "n": "open questions, a count",
}
"""What each number is. If nothing is said: high is good on retain, real and general, near the gold model's value on
forget and test, where a lower one is no better."""

GOLD = "near that of the gold model is good"


def better(split: str, name: str) -> Literal["min", "max", "gold"] | None:
    """What is good of a number, as :data:`DIRECTIONS` says.

    Args:
        split: e.g. ``forget``, or ``forget_text`` for questions without image.
        name: of the number.

    Returns:
        ``min`` where low is good, ``max`` where high is good, ``gold`` where it should come near the gold model's;
        ``None`` for a count, for what should come near another value, and for a number that is not described.
    """
    said = DIRECTIONS.get(name)
    if said is None or said.endswith("a count"):
        return None
    if said.endswith(GOLD):
        return "gold"
    if "is good" in said:
        return "min" if "low is good" in said else "max" if "high is good" in said else None
    return "gold" if split.removesuffix("_text") in ("forget", "test") else "max"
