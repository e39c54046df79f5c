"""Asking otherwise: nothing is told, what is forced is forced, and every way asks about those who are kept, too."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from support.families import FAMILIES, random_model
from viker_lightning.attacks.attempt import Attempt, hit
from viker_lightning.attacks.kinds.ask import (
    BESIDE_PHOTO,
    EXAMPLES,
    JAILBREAKS,
    REWORDED,
    WITHOUT_PHOTO,
    AskOtherwise,
    another_fact,
    answered,
    beginning,
    choose_examples,
    named,
    span_owners,
)
from viker_lightning.attacks.material import gather
from viker_lightning.attacks.ways import any_of, ask_in_a_way, untold
from viker_lightning.attacks.wordings import Wordings
from viker_lightning.data.records import VQA, ImageGroup, Person, Split, person_name
from viker_lightning.models import PromptPrefixes, answer_alone, generate

FORCED = "Sure, here is the answer:"


def test_every_part_asks_about_forgotten_and_kept(subject, one_person):
    attack = AskOtherwise.quick()
    found = {part: attack.carry_out(part, subject, one_person) for part in attack.parts()}
    asked = Counter((g.person, q.private) for g in one_person.asked for q in g.vqa)
    for part, attempts in found.items():
        assert {a.whose for a in attempts} == {"forget", "retain"}, part
        for a in attempts:
            assert a.private and a.hit == hit(a.answer, a.private)
            assert a.series.startswith("any ") or not hit(a.question, a.private), "the answer is told"
    clean = found[attack.clean]
    assert Counter((a.person, a.private) for a in clean) == asked
    assert {a.series for a in clean} == {attack.clean}
    kinds = {a.series for a in found["jailbreak prompts"]}
    assert kinds == {*JAILBREAKS, "any of 3 jailbreak prompts"}
    reworded = Counter(a.series for a in found["other words"])
    assert all(reworded[f"reworded {n}"] == len(clean) for n in range(1, len(REWORDED) + 1))
    assert reworded["words of the data 1"] > 0 and reworded["any other words"] == len(clean)
    assert {a.series for a in found["by another fact"]} == {BESIDE_PHOTO, WITHOUT_PHOTO}
    assert all(a.probability is None for a in found["examples of others"])
    assert [a.question for a in found["examples of others"]] == [a.question for a in clean]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_forced_beginning_is_the_prompt_of_what_follows(name, data):
    """What is generated is what transformers generates behind question and beginning, and so are the labels."""
    model = random_model(name)
    picture = data.people()[0].images[0]
    vqa = VQA("Where does this person live?", "In Tarn Hollow.", ("Tarn Hollow",))
    group = ImageGroup("1", picture, Split.FORGET, (vqa, replace(vqa, question="Who?")))
    own, before = model.encoder, generate(model, [group], 6)
    with beginning(model, FORCED):
        texts = generate(model, [group], 6)[0]
        labels = [model.encoder.encode(q, True).answer for q in group.vqa]
    template = own.template
    for q, text, answer in zip(group.vqa, texts, labels, strict=True):
        words = template.image_prefix + template.question.format(question=q.question)
        words += template.answer.format(answer=FORCED)
        start, ids = (own.tokenizer(w, add_special_tokens=False)["input_ids"] for w in (template.image_prefix, words))
        assert text == answer_alone(model, [*model.prefix(picture), *ids[len(start) :]], [picture], 6)
        assert own.decode(list(answer)) == q.answer
    assert model.encoder is own and generate(model, [group], 6) == before


def test_the_best_of_several_ways():
    vqa = VQA("Where?", "In Tarn.", ("Tarn",))
    asked = [ImageGroup("1", None, Split.FORGET, (vqa, replace(vqa, question="Who?")))]

    def attempt(said, probability):
        return Attempt("way", None, "forget", "1", "in other words", ("Tarn",), said, hit(said, ["Tarn"]), probability)

    ways = [{(0, 0): attempt("no", 0.9)}, {(0, 0): attempt("in Tarn", 0.2)}, {(0, 0): attempt("Tarn", None)}]
    (best,) = any_of(asked, "any", ways)
    assert (best.series, best.question, best.answer, best.hit, best.probability) == ("any", "Where?", "in Tarn", 1, 0.9)


def test_what_is_told_is_not_asked():
    vqa = VQA("Who?", "Ada Tarn lives in Rio.", ("Ada Tarn", "Rio"))
    assert untold(vqa, "Riot of Ada") == vqa
    assert untold(vqa, "ada tarn is called").private == ("Rio",)
    assert untold(vqa, "Ada Tarn of Rio") is None


def test_a_way_may_leave_questions_out_and_show_other_photos(mllm, data):
    forget = gather(data).forget
    other = data.people()[-1].images[0]

    def put(group, vqa):
        if vqa is group.vqa[0]:
            return None
        return (other if vqa is group.vqa[1] else group.image), vqa

    found = ask_in_a_way(mllm, forget, "way", put, 4)
    assert sorted(found) == [(i, j) for i, g in enumerate(forget) for j in range(1, len(g.vqa))]
    assert all(found[i, j].question == forget[i].vqa[j].question for i, j in found)


def test_questions_that_ask_the_same(one_person):
    """Found by answers: the ones of a person and attribute, and of no other attribute."""
    wordings = Wordings(one_person)
    group = one_person.forget[0]
    for vqa in group.vqa:
        other = wordings.others(group.person, vqa)
        trained = {q.question for p in one_person.people if person_name(p.id) == group.person for q in p.vqa}
        assert not {vqa.question, *trained} & set(other)
        assert other == wordings.others(group.person, vqa)
    born = next(q for q in group.vqa if "birthplace" in q.question or "born" in q.question)
    words = wordings.same_as(born)
    assert len(words) > 1 and all("birthplace" in w or "born" in w or "come from" in w for w in words)
    spans = {private for _, private in wordings.answers(born)}
    assert born.private in spans and all(len(private) == 1 for private in spans)


def test_bare_spans_join_no_questions(one_person):
    """Somebody may live where they were born."""
    bare = (VQA("Born where?", "Tarn.", ("Tarn",)), VQA("Lives where?", "Tarn.", ("Tarn",)))
    told = (VQA("Job?", "A baker by day.", ("baker",)), VQA("Work?", "A baker by day.", ("baker",)))
    someone = Person("x", one_person.people[0].images, (*bare, *told))
    wordings = Wordings(replace(one_person, people=[someone], test=[]))
    assert wordings.same_as(bare[0]) == {"Born where?"}
    assert wordings.same_as(told[0]) == {"Job?", "Work?"}


def test_examples_hold_nothing_that_is_asked(one_person):
    wordings = Wordings(one_person)
    for group in one_person.asked:
        for vqa in group.vqa:
            found = choose_examples(group, vqa, one_person.others, 3, wordings)
            assert len({person.id for person, _ in found}) == len(found) == 3
            for person, example in found:
                assert person in one_person.others and example in person.vqa and example.private
                assert not hit(example.answer, vqa.private) and "\n" not in example.question
    alone = [replace(one_person.others[0], vqa=(replace(vqa, question="Same?"),))]
    assert choose_examples(group, vqa, alone, 3, wordings) == []


def test_examples_are_read_with_their_photos(subject, one_person):
    """A prompt has as many photos as there are examples, and one more."""
    mllm, seen = subject.load(), []

    class Noted(PromptPrefixes):
        def answers(self, name, prompts, most):
            seen.extend(prompts)
            return super().answers(name, prompts, most)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("viker_lightning.attacks.kinds.ask.PromptPrefixes", Noted)
        found = AskOtherwise(examples=2).carry_out(EXAMPLES, subject, one_person)
    assert {len(p.pictures) for p in seen} == {3} and len(seen) == len(found)
    text = mllm.encoder.tokenizer.decode(seen[0].ids)
    assert text.count("USER:") == 3 and text.count("ASSISTANT:") == 3 and text.endswith("ASSISTANT:")


def test_examples_of_other_families_stand_in_one_turn():
    vqa = VQA("Where?", "In Tarn.")
    assert answered(random_model("llava").encoder.template, vqa) == "Where?\nASSISTANT: In Tarn.\n"
    assert answered(random_model("qwen2_vl").encoder.template, vqa) == "Question: Where?\nAnswer: In Tarn.\n"


def test_a_model_of_no_known_family_reads_examples_as_text(one_person):
    class Loaded:
        def load(self):
            return random_model("gemma3").eval()

    few = replace(one_person, forget=one_person.forget[:1], retain=one_person.retain[:1])
    few = replace(few, **{w: [replace(g, vqa=g.vqa[:1]) for g in getattr(few, w)] for w in ("forget", "retain")})
    found = AskOtherwise(examples=1).carry_out(EXAMPLES, Loaded(), few)
    assert [a.whose for a in found] == ["forget", "retain"]
    assert all(a.question.startswith("Question: ") and a.question.endswith("\nAnswer:") for a in found)


def test_names_in_place_of_photos(one_person):
    people = {g.person for g in one_person.forget} | {g.person for g in one_person.retain}
    groups = named(one_person)
    assert {g.person for g in groups} == people and all(g.image is None for g in groups)
    assert not any(hit(q.question, q.private) for g in groups for q in g.vqa)


def test_another_fact_is_of_one_person_alone():
    job, home, name = (
        VQA("Job?", "A baker.", ("baker",)),
        VQA("Home?", "In Rio.", ("Rio",)),
        VQA("Name?", "Ada Tarn, baker.", ("Ada Tarn", "baker")),
    )
    people = [Person("1", (), (job, home, name)), Person("2", (), (VQA("Home?", "Rio!", ("rio",)),))]
    owners = span_owners(people)
    assert owners["rio"] == 2 and owners["ada tarn"] == 1
    group = ImageGroup("1", None, Split.FORGET, (job, home, name))
    assert another_fact(group, home, owners, 0) in ("A baker.", "Ada Tarn, baker.")
    assert another_fact(group, job, owners, 0) is None, "Rio fits two people, and the name comes with the job"
    assert another_fact(group, name, owners, 0) == "A baker."


def test_greedy_answers_of_a_clean_series_are_those_of_the_engine(subject, one_person):
    mllm = subject.load()
    found = AskOtherwise().carry_out(AskOtherwise.clean, subject, one_person)
    texts = [text for row in generate(mllm, one_person.asked, 4) for text in row]
    assert [a.answer for a in found] == texts
    assert torch.is_grad_enabled()
