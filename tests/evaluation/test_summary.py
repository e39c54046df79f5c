"""Numbers from predictions, in hand-made cases."""

import math
from dataclasses import replace

import pytest
import torch

from viker_lightning import metrics
from viker_lightning.callbacks.files import gold_answers, read_predictions, write_predictions
from viker_lightning.data.records import Split
from viker_lightning.errors import UserError
from viker_lightning.evaluation import DIRECTIONS, Prediction, compare, distances, predict, score_texts, summarise
from viker_lightning.ideal.plain import plain_logits


def said(split="forget", number=0, answer="She lives in Oslo.", log_probs=(-1.0, -3.0), person="1", **more):
    correct = [p > -2 for p in log_probs]
    more = {"log_prob_mean": [-2.0, -2.0], "log_prob_variance": [1.0, 4.0]} | more
    about = (split, person, "generation", number, "Where?", "She lives in Oslo.", answer, ("Oslo",))
    return Prediction(*about, list(log_probs), correct, [False, True], **more)


def chosen(split, number, answer, modality="image"):
    options = ["red", "green"]
    return Prediction(
        *(split, "1", "choice", number, "?", "red", answer, ()), [-1.0, -2.0], modality=modality, options=options
    )


def test_every_number_is_explained():
    everything = [
        said(split, paraphrase=-1.0, perturbed=[-2.0], modality=modality, answer_log_prob=-5.0, reference_log_prob=-6.0)
        for split in ("forget", "retain", "real")
        for modality in ("image", "text")
    ]
    everything += [chosen("forget", 0, "red"), chosen("forget", 0, "green", "text")]
    everything += [chosen("retain", 0, "red"), chosen("retain", 0, "green", "text")]
    for split in ("forget", "retain"):
        everything += [Prediction(split, "1", "cloze", 0, "__", "a", "a", modality=m) for m in ("image", "text")]
    everything[0].kl_gold = 0.1
    summary = summarise(everything, everything, lambda texts: [0.5] * len(texts), paired=True)
    named = {name for values in summary.values() for name in values}
    assert named <= set(DIRECTIONS)
    assert set(DIRECTIONS) - named == {"clear_real", "clear_retain", "clear_forget", "distance_to_gold"}


def test_answers_weighed_against_others():
    found = [
        said(paraphrase=-1.0, perturbed=[-2.0, -4.0]),
        said(number=1, perturbed=[-2.0]),
        chosen("forget", 0, "red"),
    ]
    values = summarise(found)["forget"]
    assert values["truth_ratio"] == pytest.approx((math.exp(-3 + 1) + 1.0) / 2)  # no paraphrase: the answer itself
    first = math.exp(-2) / (math.exp(-2) + math.exp(-2) + math.exp(-4))
    assert values["relative_probability"] == pytest.approx((first + 0.5) / 2)
    assert values["option_probability"] == pytest.approx(math.exp(-1) / (math.exp(-1) + math.exp(-2)))
    assert values["exact_memorization"] == 0.5
    assert summarise([said("retain", perturbed=[-4.0])])["retain"]["truth_ratio"] == pytest.approx(1 - math.exp(-2))


def test_model_utility_is_the_harmonic_mean_of_what_is_kept():
    kept = [said("retain", log_probs=(-1.0, -1.0)), said("real", log_probs=(0.0, 0.0)), said("forget")]
    p = math.exp(-1)
    assert summarise(kept)["overall"]["model_utility"] == pytest.approx(4 / (1 / p + 1 + 1 + 1))
    assert "overall" not in summarise([said()])
    against = [said("real", log_probs=(-1.0, -1.0), perturbed=[-1.0])]
    assert summarise(against)["overall"]["model_utility"] == 0.0  # truth and untruth alike: max(0, 1 - TR) is 0


def test_modalities_are_apart():
    found = [chosen("forget", 0, "red"), chosen("forget", 0, "green", "text"), chosen("forget", 1, "red", "text")]
    summary = summarise(found)
    assert summary["forget"]["accuracy"] == 1 and summary["forget_text"]["accuracy"] == 0.5
    assert summary["forget"]["modality_gap"] == 0.5
    alone = summarise(found[1:])
    assert set(alone) == {"forget"} and "modality_gap" not in alone["forget"]


def test_exposure_ranks_the_truth_among_what_is_scored_anyway():
    values = summarise([said(perturbed=[-3.0, -1.0, -9.0]), chosen("forget", 0, "red")])["forget"]
    assert values["exposure"] == pytest.approx(1.0)  # the mean log-probability -2 is the second of four: 2 - 1 bits
    assert values["option_exposure"] == pytest.approx(1.0)  # the first of two
    assert "exposure" not in summarise([said()])["forget"]


def test_pairs_of_answers_with_image_and_without():
    """UMU-Bench: what is forgotten with the photo only is not forgotten."""

    def pair(split, number, image, text):
        options = {"options": ["red", "green"]}
        return [
            Prediction(split, "1", "choice", number, "?", "red", a, (), [-1.0, -2.0], modality=m, **options)
            for m, a in (("image", image), ("text", text))
        ]

    both, neither, half = ("red", "red"), ("green", "green"), ("green", "red")
    found = [
        q
        for i, answers in enumerate((both, neither, half, half))
        for s in ("forget", "retain")
        for q in pair(s, i, *answers)
    ]
    found += [said(answer=a, modality=m) for a, m in (("She lives in Oslo.", "image"), ("No.", "text"))]
    found += [said("retain", answer=a, modality=m) for a, m in (("She lives in Oslo.", "image"), ("No.", "text"))]
    found.append(chosen("forget", 9, "red"))  # without a question in text: no pair
    summary = summarise(found, paired=True)
    assert summary["forget"]["acc_f"] == summary["retain"]["acc_r"] == 0.25
    assert summary["forget"]["rl_f"] == 1 and summary["retain"]["rl_r"] == 0
    assert (
        "acc_r" not in summary["forget"] and "rl_f" not in summary["retain"] and "acc_f" not in summary["forget_text"]
    )
    assert not {"acc_f", "acc_r", "rl_f", "rl_r"} & {name for v in summarise(found).values() for name in v}


def answers(shift, split="forget", n=8):
    return [
        said(split, i, log_probs=(-1.0 - shift - i / 9, -1.0), person=str(i), perturbed=[-2.0 - i / 7])
        for i in range(n)
    ]


def test_gold_run_is_compared_with():
    gold = answers(3.0)
    same, far = compare(gold, gold), compare(answers(0.0), gold)
    assert same["forget_quality_p"] == 1 and same["mia_loss"] == same["mia_zlib"] == same["mia_min_k"] == 0.5
    assert same["js_similarity"] == pytest.approx(1)
    assert far["forget_quality_p"] < 0.01 and far["forget_quality_log10_p"] < -2 and far["forget_quality_ks"] == 1
    assert far["mia_loss"] == 1 and far["js_similarity"] < 1
    assert same["mia_min_k_plus_plus"] == same["mia_reference"] == 0.5
    assert far["mia_min_k_plus_plus"] == far["mia_reference"] == 1
    old = [replace(p, log_prob_mean=[], log_prob_variance=[]) for p in gold]
    assert set(far) - set(compare(answers(0.0), old)) == {"mia_min_k_plus_plus"}
    assert compare(answers(0.0, "retain"), gold) == {} == compare(gold, [])


def test_gold_answers_are_matched_by_question(caplog):
    gold = answers(3.0)
    assert compare(answers(3.0)[::-1], gold[2:]) == compare(gold[2:], gold[2:])
    assert "6 of 8 questions" in caplog.text
    assert "mia_loss" not in summarise([*gold, *answers(3.0, "test")], gold)["test"]
    with pytest.raises(UserError, match=r"evaluation.gold_predictions: found none of the 8 open questions"):
        summarise(answers(0.0), answers(0.0, "test"))


def test_every_photo_of_a_person_is_compared():
    """CLEAR asks the same question, with the same answer, about all photos of a person."""
    gold = [said(image=key, log_probs=(-1.0, -4.0 - i)) for i, key in enumerate(("a", "b", "c"))]
    found = [said(image=key, log_probs=(-1.0, -4.5 + i)) for i, key in enumerate(("a", "b", "c"))]
    assert compare(found, gold)["mia_reference"] == pytest.approx(2 / 3)  # likelier than to gold: b and c
    assert compare(found, gold) == compare(found[::-1], gold[1:] + gold[:1])


def test_over_unlearned_is_as_far_from_gold_as_untouched():
    """Defect P12: an area near 0 is no better than one near 1."""
    gold = answers(3.0)
    before, over, half = (summarise(answers(shift), gold) for shift in (0.0, 9.0, 2.9))
    assert over["forget"]["mia_loss"] == 0
    assert distances(before, over)["forget"]["mia_loss"] == 0 == distances(before, before)["forget"]["mia_loss"]
    assert 0 < distances(before, half)["forget"]["mia_loss"] <= 1
    assert distances(summarise(gold, gold), half) == {}


def test_gold_file(tmp_path):
    file = tmp_path / "predictions.parquet"
    write_predictions(file, [("before", said()), ("after", said(answer="No."))])
    assert [p.answer for p in gold_answers(str(tmp_path), None)] == ["No."]
    assert gold_answers(None, str(file)) == gold_answers(str(tmp_path), None)
    assert gold_answers(str(tmp_path / "model"), None) == [] == gold_answers(None, None)
    (tmp_path / "junk").write_text("junk")
    for name in ("missing", "junk"):
        with pytest.raises(UserError, match=r"evaluation.gold_predictions: .*holds no predictions"):
            gold_answers(None, str(tmp_path / name))


def test_predictions_survive_the_file(tmp_path):
    found = [("after", said(perturbed=[-1.0], reference_log_prob=-2.0)), ("after", chosen("forget", 1, "red", "text"))]
    write_predictions(tmp_path / "p.parquet", found)
    assert read_predictions(tmp_path / "p.parquet") == found


def test_coherence_is_what_the_metric_says():
    good = said(answer="She lives in Rome.", answer_log_prob=-10.0, reference_log_prob=-10.0)
    odd = said(number=1, answer="xq zv kk jw qqqq vx", answer_log_prob=-90.0, reference_log_prob=-10.0)
    empty = said(number=2, answer=" ", reference_log_prob=-10.0)
    usual = metrics.bits_per_character("She lives in Oslo.", -10.0)
    assert summarise([good])["forget"]["coherence"] == pytest.approx(1)
    wanted = usual / metrics.bits_per_character(odd.answer, -90.0) / 3 + 1 / 3
    assert summarise([good, odd, empty])["forget"]["coherence"] == pytest.approx(wanted)
    assert "coherence" not in summarise([said()])["forget"]
    nothing = said(number=3, answer="<image>", reference_log_prob=-10.0)  # a token, not a text: nothing was read
    assert summarise([good, nothing])["forget"]["coherence"] == pytest.approx(0.5)


def test_texts_are_read_by_the_frozen_model_without_image(mllm, groups):
    group = groups[0].__class__(groups[0].person, groups[0].image, Split.FORGET, groups[0].vqa)
    found = predict(mllm, [group])
    found[1].answer = " "
    known = {}
    mllm.max_sequence_tokens = 60
    score_texts(mllm, found, known)
    texts = {(p.question, text) for p in found for text in (p.answer.strip(), p.reference) if text}
    assert set(known) == texts
    assert found[1].answer_log_prob is None
    with mllm.frozen():
        logits, tokens = plain_logits(mllm, [group.__class__(group.person, None, None, group.vqa)])
    log_probs = logits.log_softmax(-1)[torch.arange(len(tokens.labels)), tokens.labels]
    for i, p in enumerate(found):
        assert p.reference_log_prob == pytest.approx(log_probs[tokens.question == i][:-1].sum().item(), rel=1e-4)
