"""Numbers from predictions, in hand-made cases."""

import math
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch

from support.plain_route import plain_logits
from viker_lightning import metrics
from viker_lightning.data.records import Split
from viker_lightning.errors import UserError
from viker_lightning.evaluation import distances, note_form, predict, score_texts, summarise
from viker_lightning.metrics import NUMBERS, REFUSALS, Prediction
from viker_lightning.storage.runs.write import gold_answers, read_predictions, write_predictions


def said(split="forget", number=0, answer="She lives in Oslo.", log_probs=(-1.0, -3.0), person="1", **more):
    correct = [p > -2 for p in log_probs]
    more = {"log_prob_mean": [-2.0, -2.0], "log_prob_variance": [1.0, 4.0], "ended": False} | more
    about = (split, person, "generation", number, "Where?", "She lives in Oslo.", answer, ("Oslo",))
    return Prediction(*about, list(log_probs), correct, [False, True], **more)


def chosen(split, number, answer, modality="image"):
    options = ["red", "green"]
    return Prediction(
        *(split, "1", "choice", number, "?", "red", answer, ()), [-1.0, -2.0], modality=modality, options=options
    )


def test_every_number_is_explained():
    everything = [
        said(
            *(split,),
            **{"paraphrase": -1.0, "perturbed": [-2.0], "modality": modality, "well_formed": True},
            **{"answer_log_prob": -5.0, "reference_log_prob": -6.0},
        )
        for split in ("forget", "retain", "real")
        for modality in ("image", "text")
    ]
    everything += [chosen("forget", 0, "red"), chosen("forget", 0, "green", "text")]
    everything += [chosen("retain", 0, "red"), chosen("retain", 0, "green", "text")]
    for split in ("forget", "retain"):
        everything += [Prediction(split, "1", "cloze", 0, "__", "a", "a", modality=m) for m in ("image", "text")]
    everything[0].kl_gold, everything[0].correction = 0.1, ("Corlune",)
    summary = summarise(everything, everything, lambda texts: [0.5] * len(texts), paired=True)
    named = {name for values in summary.values() for name in values}
    described = {one.name for one in NUMBERS}
    assert named <= described
    assert described - named == {"clear_real", "clear_retain", "clear_forget", "distance_to_gold"}


def test_the_end_of_sequence_is_no_part_of_what_is_memorised():
    """As open-unlearning has it: extraction strength, exact memorisation, Min-K and Min-K++ leave it out."""

    def one(right, ended, **more):
        log_probs = [-0.1 if found else -5.0 for found in right]
        moments = {"log_prob_mean": [-2.0] * len(right), "log_prob_variance": [1.0] * len(right)}
        tokens = {"log_probs": log_probs, "correct": list(right), "private_tokens": [False] * len(right)}
        return replace(said(), **tokens, **moments, ended=ended, **more)

    for right, strength in (((True, True, False), 1.0), ((False, False, True), 0.0)):
        known = summarise([one(right, True)])["forget"]
        assert known["extraction_strength"] == known["exact_memorization"] == strength
        # A file that does not say: answers are ended unless their benchmark's authors leave the end out.
        assert summarise([one(right, None)])["forget"] == known
        published = summarise([one(right, None, protocol="published")])["forget"]
        assert published == summarise([one(right, False)])["forget"] != known
        assert known["answer_probability"] == published["answer_probability"]  # TOFU's has the end of sequence
    words, end = one((True, True, False), True), one((True, True, True), True)
    found = compare([words], [end])
    assert found["mia_min_k"] == found["mia_min_k_plus_plus"] == 0.5, "they differ at the end of sequence alone"
    assert found["mia_loss"] == 0
    assert "extraction_strength" not in summarise([one((True,), True)])["forget"]


def test_blanks_are_filled_with_words_but_as_published_with_anything():
    about = ("forget", "1", "cloze", 0, "__", "art", "parties")
    for protocol, right in (("corrected", 0.0), ("published", 1.0)):
        found = [Prediction(*about, protocol=protocol, modality=m) for m in ("image", "text")]
        found += [replace(p, split="retain") for p in found]
        values = summarise(found, paired=True)
        assert values["forget"]["cloze"] == values["retain"]["cloze_r"] == right
        assert values["forget"]["cloze_f"] == 1 - right


def test_half_of_a_place_is_told():
    found = replace(said(answer="She was born in Brenholm."), private=("Brenholm, Astavia",))
    values = summarise([found])["forget"]
    assert values["keyword_match"] == 0.5 and values["keyword_match_whole"] == 0


def test_options_are_compared_by_their_probability_or_per_token():
    """By its mean, a long option wins whose first token is unlikely and whose others are certain."""
    about = ("test", "1", "choice", 0, "?", "Rio", "Rio", ())
    found = Prediction(*about, [-0.35, -0.24], options=["Rio", "San Juan, Peru"], option_tokens=[2, 5])
    values = summarise([found])["test"]
    assert values["accuracy"] == 1 and values["accuracy_per_token"] == 0
    assert metrics.likeliest_option(found.log_probs, found.option_tokens) == 0
    assert metrics.likeliest_option(found.log_probs) == 1
    letters = Prediction(*about, options=["Rio", "Lima"], protocol="published")
    assert summarise([letters])["test"]["accuracy"] == 1 and "accuracy_per_token" not in summarise([letters])["test"]


def test_refusals_are_counted_and_not_judged():
    """The frozen model has never seen one: it would find it worse than shuffled words."""
    good = said(answer="She lives in Rome.", answer_log_prob=-10.0, reference_log_prob=-10.0)
    refusal = said(
        number=1,
        answer="I don\N{RIGHT SINGLE QUOTATION MARK}t have that information",
        answer_log_prob=-90.0,
        reference_log_prob=-10.0,
    )
    own = replace(refusal, answer="Ask somebody else.")
    assert summarise([good, refusal])["forget"]["coherence"] == summarise([good])["forget"]["coherence"]
    assert summarise([good, refusal])["forget"]["bits_per_character"] < 2
    assert summarise([good, refusal])["forget"]["refusals"] == 0.5
    assert "coherence" not in summarise([refusal])["forget"], "there is nothing to judge"
    assert summarise([good, own])["forget"]["coherence"] < 0.7 and summarise([own])["forget"]["refusals"] == 0
    note_form([good, refusal, own], None, ("Ask somebody else.",))
    assert [good.refusal, refusal.refusal, own.refusal] == [False, False, True], "a method may bring its own"
    assert summarise([own])["forget"]["refusals"] == 1 and good.well_formed is None
    assert "well_formed" not in summarise([good])["forget"]


def test_well_formed_is_a_sentence_of_the_data_or_a_refusal(data):
    texts = [
        "This person works as a baker.",
        "They earn their living as a.",
        REFUSALS[0].upper(),
        "I know who this is.",
    ]
    found = [said(number=i, answer=text) for i, text in enumerate(texts)]
    note_form(found, data.grammar, REFUSALS)
    assert [p.well_formed for p in found] == [True, False, True, False]
    assert summarise(found)["forget"]["well_formed"] == 0.5


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


def compare(found, gold):
    """The numbers of a model that there are only beside gold."""
    split = found[0].split
    alone = summarise(found)[split]
    return {name: value for name, value in summarise(found, gold)[split].items() if name not in alone}


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


def test_a_file_from_before_ends_and_forms_were_noted_is_read(tmp_path):
    found = [("after", said(ended=True, well_formed=True)), ("after", chosen("forget", 1, "red", "text"))]
    write_predictions(tmp_path / "new.parquet", found)
    new = ["ended", "refusal", "well_formed", "option_tokens"]
    pq.write_table(pq.read_table(tmp_path / "new.parquet").drop_columns(new), tmp_path / "old.parquet")
    (_, old), (_, choice) = read_predictions(tmp_path / "old.parquet")
    assert old == replace(found[0][1], ended=None, refusal=None, well_formed=None) and choice.option_tokens == []
    summary, known = (summarise([p for _, p in read]) for read in ([("", old), ("", choice)], found))
    assert set(known["forget"]) - set(summary["forget"]) == {"well_formed"}
    assert {"extraction_strength": 1.0, "accuracy_per_token": 1.0}.items() <= {
        **summary["forget"],
        **summary["forget_text"],
    }.items()


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
