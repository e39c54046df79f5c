"""A choice among spans: options are other people's answers to the same question, and chance is one in so many."""

import pytest
import torch

from viker_lightning.attacks.choosing import LIKELIEST, LISTED, ChooseSpan, swap_spans, wrong_answers
from viker_lightning.attacks.material import gather
from viker_lightning.attacks.subject import Subject
from viker_lightning.attacks.wordings import Wordings
from viker_lightning.data.records import VQA, ImageGroup, Split


@pytest.fixture(scope="module")
def material(data):
    return gather(data, people=1)


@pytest.fixture
def subject(base_folder, tmp_path):
    return Subject("run", str(base_folder), tmp_path)


def test_spans_are_put_in_one_for_one():
    answer = "Ada lives in Rio, and Riot is not in Rio."
    assert swap_spans(answer, ("Ada", "Rio"), ("Rio", "Tarn")) == "Rio lives in Tarn, and Riot is not in Tarn."
    assert swap_spans("In New Tarn or Tarn.", ("Tarn", "New Tarn"), ("a", "b")) == "In b or a."


def test_options_are_other_peoples_answers(material):
    wordings = Wordings(material)
    known = {span for p in (*material.people, *material.kept, *material.others) for q in p.vqa for span in q.private}
    enough = 0
    for group in material.asked:
        for vqa in group.vqa:
            wrong = wrong_answers(wordings, group, vqa, 3, 0)
            assert len({q.answer for q in wrong}) == len(wrong)
            enough += len(wrong) == 3
            for option in wrong:
                assert option.question == vqa.question and set(option.private) <= known
                assert not set(option.private) & set(vqa.private)
                assert option.answer == swap_spans(vqa.answer, vqa.private, option.private) != vqa.answer
    assert enough >= sum(len(g.vqa) for g in material.asked) / 2, "a dozen people are asked in many words"


def test_wrong_answers_of_the_data_fill_up(material):
    vqa = VQA("Asked of nobody else?", "In Tarn.", ("Tarn",), perturbed=("In Rio.", "Of Tarn.", "In Rio.", "In Oslo."))
    group = ImageGroup("nobody", None, Split.FORGET, (vqa,))
    found = wrong_answers(Wordings(material), group, vqa, 5, 0)
    assert [q.answer for q in found] == ["In Rio.", "In Oslo."]


def test_a_hit_is_the_likeliest_of_the_whole_answers(subject, material):
    """The same numbers one question at a time; listed options by the benchmark's own way."""
    attack = ChooseSpan()
    assert not attack.says and attack.numbers([]) == {}
    found = attack.carry_out(attack.parts()[1], subject, material)
    mllm, wordings, number, count = subject.load(), Wordings(material), 0, len(found) // 2
    assert [a.series for a in found] == [LIKELIEST] * count + [LISTED] * count
    assert attack.numbers(found) == {"chance": 0.25}
    assert {a.whose for a in found} == {"forget", "retain"}
    for group in material.asked:
        for vqa in group.vqa:
            options = [vqa, *wrong_answers(wordings, group, vqa, 3, material.seed)]
            if len(options) < 4:
                continue
            tokens = [mllm.answer_tokens(mllm.pack([ImageGroup("1", group.image, vqa=(q,))])) for q in options]
            sums = torch.stack([t.log_probs.sum() for t in tokens])
            assert found[number].hit == float(sums.argmax() == 0)
            assert found[number].answer == options[int(sums.argmax())].answer
            private = tokens[0].log_probs[tokens[0].private].exp().mean().item()
            assert found[number].probability == pytest.approx(private, rel=1e-3)
            listed = found[count + number]
            assert listed.hit == float(listed.answer in (vqa.private[0], vqa.answer))
            number += 1
    assert number == count


def test_questions_with_too_few_options_are_left_out(subject, material):
    assert ChooseSpan(options=500).carry_out("a choice among spans", subject, material) == []
    clean = ChooseSpan(options=500).carry_out(ChooseSpan.clean, subject, material)
    assert len(clean) == sum(len(g.vqa) for g in material.asked)
