"""Truth ratio and option probability: does a model prefer the true answer to false ones? (TOFU, CLEAR)."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from .checks import check_log_probs
from .prediction import Prediction

Data = Literal["forget", "retain"]


class Tasks(Protocol):
    """What truth ratios need to know of the evaluation protocol.

    Attributes:
        pools_wrong_answers: Whether one mean of the wrong answers is taken over all questions of a task.
    """

    pools_wrong_answers: bool

    def task_of(self, question: str) -> str:
        """Return the task a question belongs to; empty for none."""

    def compares_with_gold(self, question: str) -> bool:
        """Say whether the question's ratio is compared with the gold model's."""


def likeliest_option(log_probs: Sequence[float], tokens: Sequence[int] | None = None) -> int:
    """Return the number of the option that a model finds likeliest, the first of equals.

    Args:
        log_probs: Of each option, the mean log probability of its tokens and of the end of sequence behind them.
        tokens: Of each option, how many tokens these are: then options are compared by their sums, the probability
            that the model answers with this option and no other. Without them, by their means, which favour long
            options: all but the first token of an option that is given in the question are nearly certain.
    """
    scores = log_probs if tokens is None else [mean * n for mean, n in zip(log_probs, tokens, strict=True)]
    return scores.index(max(scores))


def truth_ratio(
    correct: Tensor, wrong: Sequence[Tensor], average: Literal["geometric", "arithmetic"] = "geometric"
) -> float:
    """Return how likely false answers are beside the true one, per token: TR = mean_k P(wrong_k) / P(correct).

    P is `answer_probability`. In [0, inf): 0 means that only the truth is known, 1 that true and false are alike. The
    mean over the false answers *of this question* (CLEAR's script averages them over the whole data set) is
    geometric in TOFU's and open-unlearning's code (mean loss; `aggregate_eval_stat.py`, `memorization.py`) and
    arithmetic in TOFU's equation 1 (arXiv 2401.06121). No 1e-10 is added to the divisor, as open-unlearning does.
    open-unlearning's later form p_c / (p_c + p_w) is 1 / (1 + TR), TOFU's code stores 1 / TR.

    Args:
        correct: [T] log probability of each token of the (paraphrased) true answer.
        wrong: One such vector for each false answer; lengths may differ.
        average: Which mean over the false answers.

    Returns:
        The ratio; infinite if it exceeds the float range or the true answer is impossible.

    Raises:
        ValueError: If there are no false answers, a tensor is not a non-empty vector of log probabilities, true and
            all false answers are impossible, or `average` is neither of the two.
    """
    if isinstance(wrong, Tensor):
        raise ValueError("wrong must be a list of vectors, one for each false answer")
    if not wrong:
        raise ValueError("no false answers: the truth ratio is undefined")
    truth, *others = _means(correct, wrong)
    false = torch.stack(others)
    if average == "geometric":
        log_false = false.mean()
    elif average == "arithmetic":
        log_false = false.logsumexp(0) - math.log(len(false))
    else:
        raise ValueError(f"average must be 'geometric' or 'arithmetic', not {average!r}")
    if truth == log_false == -math.inf:
        raise ValueError("true and false answers all have probability 0: their ratio is undefined")
    return (log_false - truth).exp().item()


def truth_ratio_score(ratio: float, data: Data) -> float:
    """Turn a truth ratio into the number TOFU and CLEAR average: min(TR, 1/TR) on forget, max(0, 1 - TR) on retain.

    In [0, 1], high is wanted on both: on data to forget, 1 means that true and false answers are equally likely; on
    data to keep, 1 means that false answers are impossible. TOFU `aggregate_eval_stat.py`, with its R = 1 / TR.

    Args:
        ratio: From `truth_ratio`.
        data: `forget` for the people to forget; `retain` for everyone else (real faces, world facts).

    Raises:
        ValueError: If the ratio is negative or NaN, or `data` is neither of the two.
    """
    if not ratio >= 0:
        raise ValueError(f"a truth ratio must not be negative or NaN, found {ratio}")
    if data == "retain":
        return max(0.0, 1 - ratio)
    if data == "forget":
        return min(ratio, 1 / ratio) if ratio else 0.0
    raise ValueError(f"data must be 'forget' or 'retain', not {data!r}")


def option_probability(correct: Tensor, wrong: Sequence[Tensor]) -> float:
    """Return the share of the true answer among the options: P(correct) / (P(correct) + sum_k P(wrong_k)).

    P is `answer_probability`, however small. In [0, 1]; 1 / (1 + K) is chance. High is wanted on data to keep. CLEAR's
    and TOFU's "Prob." where there are options (`mm/calculate_metrics.py` L99-102).

    Args:
        correct: [T] log probability of each token of the true answer.
        wrong: One such vector for each false option, the true one left out.

    Raises:
        ValueError: If there are no false options, a tensor is not a non-empty vector of log probabilities, or every
            option has probability 0.
    """
    if not wrong:
        raise ValueError("no false options: the share is 1 whatever the model says")
    # Of logarithms, since exp of less than -745 is 0: a model that is wrong about everything still prefers an option.
    means = torch.stack(_means(correct, wrong)).clamp(max=0)
    if means.max() == -math.inf:
        raise ValueError("every option has probability 0: the share is undefined")
    return means.softmax(0)[0].item()


def _means(correct: Tensor, wrong: Sequence[Tensor]) -> list[Tensor]:
    for name, answer in (("correct", correct), *(("wrong", one) for one in wrong)):
        check_log_probs(answer, name)
    return [answer.double().mean().cpu() for answer in (correct, *wrong)]


def truth_ratios(answers: Sequence[Prediction], protocol: Tasks | None = None) -> list[tuple[Prediction, float]]:
    """Return each open question of a split that has wrong answers with its truth ratio in [0, inf], geometric mean.

    The true answer is the paraphrased one where there is one. CLEAR as published divides by P(true) of each question
    the mean of the wrong answers of *all* questions of the task; text-only rows of TOFU, which are none of its tasks,
    keep their own.

    Args:
        answers: Predictions of one split.
        protocol: The one they were made with; without it, every question keeps its own wrong answers.
    """
    asked = [p for p in answers if p.task == "generation" and p.perturbed]
    pools: dict[str, list[float]] = defaultdict(list)
    if protocol is not None and protocol.pools_wrong_answers:
        for p in asked:
            pools[protocol.task_of(p.question)] += p.perturbed
    means = {task: sum(values) / len(values) for task, values in pools.items() if task}
    ratios = []
    for p in asked:
        true = sum(p.log_probs) / len(p.log_probs) if p.paraphrase is None else p.paraphrase
        task = protocol.task_of(p.question) if protocol is not None else ""
        wrong = [means[task]] if task in means else p.perturbed
        ratios.append((p, truth_ratio(torch.tensor([true]), [torch.tensor([value]) for value in wrong])))
    return ratios
