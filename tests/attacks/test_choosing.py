"""A choice among spans: options are other people's answers to the same question, and chance is one in so many."""

from dataclasses import replace

import pytest
import torch

from viker_lightning.attacks.kinds.choose import (
    LIKELIEST,
    LISTED,
    NAMED,
    NAMES,
    ChooseSpan,
    names_in,
    other_names,
    swap_spans,
    wrong_answers,
)
from viker_lightning.attacks.material import heard
from viker_lightning.attacks.subject import Subject
from viker_lightning.attacks.wordings import Wordings
from viker_lightning.data.records import VQA, ImageGroup, Person, Split


def test_spans_are_put_in_one_for_one():
    answer = "Ada lives in Rio, and Riot is not in Rio."
    assert swap_spans(answer, ("Ada", "Rio"), ("Rio", "Tarn")) == "Rio lives in Tarn, and Riot is not in Tarn."
    assert swap_spans("In New Tarn or Tarn.", ("Tarn", "New Tarn"), ("a", "b")) == "In b or a."


def test_options_are_other_peoples_answers(one_person):
    wordings = Wordings(one_person)
    people = (*one_person.people, *one_person.kept, *one_person.others)
    known = {span for p in people for q in p.vqa for span in q.private}
    enough = 0
    for group in one_person.asked:
        for vqa in group.vqa:
            wrong = wrong_answers(wordings, group, vqa, 3, 0, heard(one_person.data))
            assert len({q.answer for q in wrong}) == len(wrong)
            enough += len(wrong) == 3
            for option in wrong:
                assert option.question == vqa.question and set(option.private) <= known
                assert not set(option.private) & set(vqa.private)
                assert option.answer == swap_spans(vqa.answer, vqa.private, option.private) != vqa.answer
    assert enough >= sum(len(g.vqa) for g in one_person.asked) / 2, "a dozen people are asked in many words"


def test_wrong_answers_of_the_data_fill_up(one_person):
    vqa = VQA("Asked of nobody else?", "In Tarn.", ("Tarn",), perturbed=("In Rio.", "Of Tarn.", "In Rio.", "In Oslo."))
    group = ImageGroup("nobody", None, Split.FORGET, (vqa,))
    found = wrong_answers(Wordings(one_person), group, vqa, 5, 0)
    assert [q.answer for q in found] == ["In Rio.", "In Oslo."]


def test_a_span_within_another_leaves_out_whose_spans_are_not(one_person, mllm):
    """Else the answer would lack one of its spans, and the encoder would refuse it."""
    asked = [("1", "John Smith", "Smith"), ("2", "Jane Doe", "Doe"), ("3", "Ada Byrd", "Orr"), ("4", "Bo Li", "Li")]
    vqas = [VQA("Who is it?", f"It is {whole}.", (whole, part)) for _, whole, part in asked]
    people = [Person(who, (), (vqa,)) for (who, *_), vqa in zip(asked, vqas, strict=True)]
    groups = [ImageGroup(p.id, None, Split.FORGET, p.vqa) for p in people]
    wordings = Wordings(replace(one_person, people=(), kept=(), others=(), test=(), forget=groups, retain=()))
    found = wrong_answers(wordings, groups[0], vqas[0], 5, 0)
    assert {q.answer for q in found} == {"It is Jane Doe.", "It is Bo Li."}
    assert all(mllm.encoder.encode(q, False).answer for q in found)


def words_of(spans):
    return {word.strip(",") for span in spans for word in span.split()}


def test_gold_has_heard_all_options_or_none(one_person):
    """Else it would pass over the one it never heard, and do worse than guessing."""
    wordings, group = Wordings(one_person), one_person.forget[0]
    vqa = next(q for q in group.vqa if len(wrong_answers(wordings, group, q, 9, 0, heard(one_person.data))) >= 4)
    wrong = wrong_answers(wordings, group, vqa, 9, 0, heard(one_person.data))
    some, mine = words_of(wrong[0].private) | words_of(wrong[1].private), words_of(vqa.private)
    for words in (some | mine, some - mine):
        found = wrong_answers(wordings, group, vqa, 9, 0, words)
        assert found and all((words_of(q.private) <= words) == (mine <= words) for q in found)
        assert len(found) < len(wrong)
    given = VQA("Asked of nobody else?", "In Tarn.", ("Tarn",), perturbed=("In Rio.", "In Oslo, Ur."))
    for known, said in (
        ({"Tarn", "Rio"}, "In Rio."),
        ({"Tarn", "Oslo", "Ur"}, "In Oslo, Ur."),
        ({"Rio"}, "In Oslo, Ur."),
    ):
        found = wrong_answers(wordings, ImageGroup("nobody", None, Split.FORGET, (given,)), given, 5, 0, known)
        assert [q.answer for q in found] == [said]


def test_a_hit_is_the_likeliest_of_the_whole_answers(subject, one_person):
    """The same numbers one question at a time; listed options by the benchmark's own way."""
    attack = ChooseSpan()
    assert not attack.says and attack.numbers([]) == {}
    found = attack.carry_out(attack.parts()[1], subject, one_person)
    mllm, wordings, number, count = subject.load(), Wordings(one_person), 0, len(found) // 2
    assert [a.series for a in found] == [LIKELIEST] * count + [LISTED] * count
    assert attack.numbers(found) == {"chance": 0.25}
    assert {a.whose for a in found} == {"forget", "retain"}
    for group in one_person.asked:
        for vqa in group.vqa:
            options = [vqa, *wrong_answers(wordings, group, vqa, 3, one_person.seed, heard(one_person.data))]
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


def test_questions_with_too_few_options_are_left_out(subject, one_person):
    assert ChooseSpan(options=500).carry_out("a choice among spans", subject, one_person) == []
    clean = ChooseSpan(options=500).carry_out(ChooseSpan.clean, subject, one_person)
    assert len(clean) == sum(len(g.vqa) for g in one_person.asked)


def test_what_people_are_called(one_person):
    names = names_in(one_person)
    everybody = (*one_person.people, *one_person.kept, *one_person.others)
    assert len({*names.values()}) == len(names) == len({person.id for person in everybody})
    for person in everybody:  # the benchmark asks everybody for their name
        asked = [q for q in person.vqa if "the name of" in q.question or "called" in q.question]
        assert asked and all(q.private == (names[person.id],) for q in asked)
    captioned = [
        Person("Ada Byrd #1", (), (VQA("Who?", "Ada Byrd smiles.", ("Ada Byrd",)),)),
        Person("007", (), (VQA("What is the name of the school?", "Oak.", ("Oak",)), VQA("His name?", "Bo.", ("Bo",)))),
        Person("008", (), (VQA("Where?", "In Rio.", ("Rio",)),)),
    ]
    captioned[1] = replace(captioned[1], vqa=(*captioned[1].vqa, VQA("Who?", "Bo Li is Bo.", ("Bo Li",))))
    assert names_in(replace(one_person, people=captioned, kept=(), others=(), forget=(), retain=())) == {
        "Ada Byrd": "Ada Byrd",  # as CLEAR has them: IDs are names
        "007": "Bo",
    }


def test_a_choice_among_names(subject, one_person):
    """A question on every photo, by the benchmark's own way; gold and who is kept are asked the same."""
    attack, names = ChooseSpan(), names_in(one_person)
    assert NAMES in attack.parts()
    found = attack.carry_out(NAMES, subject, one_person)
    assert [(a.person, a.series, a.whose) for a in found] == [
        (g.person, NAMED, "retain" if g.split == Split.RETAIN else "forget") for g in one_person.asked
    ]
    assert {a.whose for a in found} == {"forget", "retain"} and attack.numbers(found) == {"chance": 0.25}
    assert found == attack.carry_out(NAMES, Subject("gold", subject.source, subject.folder), one_person)
    for group, one in zip(one_person.asked, found, strict=True):
        options = other_names(names, heard(one_person.data), group.person, 3, one_person.seed)
        assert one.private == (names[group.person],) and one.hit == float(one.answer == one.private[0])
        assert one.answer in {one.private[0], *(q.answer for q in options)}
        assert len({q.answer for q in options}) == 3 and one.private[0] not in {q.answer for q in options}
        assert {q.answer for q in options} < {*names.values()}


def test_names_are_of_one_kind_too(one_person):
    names = {"1": "Ada Byrd", "2": "Bo Li", "3": "Cy Fox", "4": "Ada Byrd", "5": "Di Orr"}
    heard = {"Ada", "Byrd", "Bo", "Li"}
    assert [q.answer for q in other_names(names, heard, "1", 3, 0)] == ["Bo Li"]
    assert {q.answer for q in other_names(names, heard, "3", 3, 0)} == {"Di Orr"}
    assert len(other_names(names, {word for name in names.values() for word in name.split()}, "1", 2, 0)) == 2
