"""The streams that are made of forget questions: about strangers, and with other answers."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from lightning.pytorch import Trainer, seed_everything

from support.weights import random_vanilla
from viker_lightning.data.datasets import Jsonl
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import VQA, ImageGroup, Person, person_name
from viker_lightning.errors import UserError
from viker_lightning.ideal import OwnAnswers
from viker_lightning.methods import NPO, Alternative, Forget, Held, Method, Stranger, Strangers, ViKeR
from viker_lightning.metrics import keyword_match
from viker_lightning.models import Lora, generate
from viker_lightning.training import Unlearn
from viker_lightning.training.engine import Engine
from viker_lightning.training.streams import ForgetVariants


@pytest.fixture(scope="module")
def pictures():
    return irrelevant_images("people", 6, size=64)


@pytest.fixture
def step(data):
    """Eight groups of four people; the last one has no photo."""
    people = data.people()[:4]
    shown = [ImageGroup(p.id, p.images[i], vqa=p.vqa[i * 3 : i * 3 + 3]) for p in people for i in (0, 1)]
    return [*shown[:7], replace(shown[7], image=None)]


def declaring(**declared):
    return type("Mine", (Method,), {"needs": (Forget(), Strangers()), **declared})()


def asked(groups):
    return Counter((group.image and group.image.key, vqa) for group in groups for vqa in group.vqa)


@pytest.mark.parametrize("few", [1, 2, 3])
def test_strangers_are_drawn_from_seed_step_and_group_alone(step, pictures, few):
    variants = ForgetVariants(declaring(needs=[Strangers(per_step=few)]), 3, pictures, [])
    shown = set()
    for number in range(40):
        whole = variants.groups("strangers", step, number)
        on_two = [variants.groups("strangers", step[rank::2], number) for rank in range(2)]
        assert asked(whole) == asked(on_two[0]) + asked(on_two[1])
        assert asked(whole) == asked(variants.groups("strangers", step[::-1], number)), "in whatever order"
        again = ForgetVariants(declaring(needs=[Strangers(per_step=few)]), 3, pictures, [])  # as a run that is resumed
        assert again.groups("strangers", step, number) == whole
        keys = [group.image.key for group in whole]
        assert 1 <= len(keys) == len(set(keys)) <= few, "who share a stranger share its sequence"
        assert {group.person for group in whole} == {"stranger"}
        shown |= set(keys)
    assert shown == {picture.key for picture in pictures}, "all of them, in the end"
    other = ForgetVariants(declaring(needs=[Strangers(per_step=few)]), 4, pictures, [])
    assert any(other.groups("strangers", step, n) != variants.groups("strangers", step, n) for n in range(9))


def test_questions_are_the_step_s_with_the_forget_answers_but_those_without_photo(step, pictures):
    found = ForgetVariants(declaring(), 0, pictures, []).groups("strangers", step, 0)
    wanted = Counter(vqa for group in step[:7] for vqa in group.vqa)
    assert Counter(vqa for group in found for vqa in group.vqa) == wanted
    assert ForgetVariants(declaring(), 0, pictures, []).groups("strangers", step[7:], 0) == []


def test_a_question_without_photo_is_asked_about_strangers_by_name(step, pictures):
    """Where their names are given; one that does not name the person is left out."""
    person = person_name(step[7].person)
    asking = VQA("Where does Ada Lind live?", "In Corlune.", ("Corlune",))
    step[7] = replace(step[7], vqa=(asking, *step[7].vqa[:1]))
    variants = ForgetVariants(declaring(), 0, pictures, [], {person: "Ada Lind"}, ["Bo Wei", "Cy Tarn"])
    shown = {vqa for n in range(20) for g in variants.groups("strangers", step, n) if g.image is None for vqa in g.vqa}
    assert {vqa.question for vqa in shown} == {f"Where does {name} live?" for name in ("Bo Wei", "Cy Tarn")}
    assert {vqa.answer for vqa in shown} == {asking.answer}
    everything = asked(variants.everything("strangers", step))
    for number in range(20):
        assert asked(variants.groups("strangers", step, number)).keys() <= everything.keys()
    assert asked(variants.groups("strangers", step[7:], 3)) == asked(variants.groups("strangers", step[7:], 3))


def test_everything_holds_whatever_a_step_asks(step, pictures):
    variants = ForgetVariants(declaring(), 0, pictures, [])
    everything = asked(variants.everything("strangers", step))
    assert len(everything) == len(pictures) * len({vqa for group in step[:7] for vqa in group.vqa})
    for number in range(20):
        assert asked(variants.groups("strangers", step, number)).keys() <= everything.keys()


@pytest.fixture
def answers(mllm, step, pictures):
    """The frozen model's own answers to all questions of the step."""
    questions = tuple({vqa.question: vqa for group in step for vqa in group.vqa}.values())
    found = OwnAnswers(mllm, ["zzz"], 8)
    found.prepare([ImageGroup("stranger", picture, vqa=questions) for picture in pictures])
    return found


def greedy(mllm, picture, vqa):
    with mllm.frozen():
        ((text,),) = generate(mllm, [ImageGroup("x", picture, vqa=(vqa,))], 8)
    return text


def test_rehearsal_is_on_the_frozen_model_s_own_greedy_answers(mllm, step, pictures, answers):
    variants = ForgetVariants(declaring(needs=[Strangers(rehearsal=True)]), 0, pictures, [])
    variants.own_answers = answers
    assert answers.dropped == 0 and len(answers) == len(pictures) * len({v.question for g in step for v in g.vqa})
    found = variants.groups("strangers", step, 0)
    assert Counter(v.question for g in found for v in g.vqa) == Counter(v.question for g in step[:7] for v in g.vqa)
    students = 0
    for group in found:
        for vqa in group.vqa:
            assert vqa.answer == greedy(mllm, group.image, vqa) and vqa.private == ()
            ((student,),) = generate(mllm, [replace(group, vqa=(vqa,))], 8)
            students += student != vqa.answer
    assert students, "the student says something else"
    everything = asked(variants.everything("strangers", step))
    assert all(asked(variants.groups("strangers", step, n)).keys() <= everything.keys() for n in range(10))


def test_answers_with_a_private_span_are_dropped_and_counted(mllm, step, pictures, answers):
    questions = [vqa for group in variants_of(answers, pictures).everything("strangers", step) for vqa in group.vqa]
    leaked = questions[0].answer.split()[0]
    assert leaked.isalnum()
    strict = OwnAnswers(mllm, [leaked, "zzz"], 8)
    strict.prepare([ImageGroup("s", p, vqa=tuple({v.question: v for v in questions}.values())) for p in pictures])
    all_answers = [answers.answer(p, v.question) for p in pictures for v in {v.question: v for v in questions}.values()]
    told = [keyword_match(text, [leaked]) > 0 for text in all_answers]
    assert 0 < strict.dropped == sum(told) < len(told)
    variants = variants_of(strict, pictures)
    found = [vqa.answer for group in variants.everything("strangers", step) for vqa in group.vqa]
    assert found and not any(keyword_match(text, [leaked]) for text in found)
    assert len(found) < len(questions)


def test_answers_of_data_without_private_spans_stay(mllm, step, pictures):
    answers = OwnAnswers(mllm, [], 4)
    answers.prepare([ImageGroup("stranger", pictures[0], vqa=step[0].vqa)])
    assert len(answers) == 3 and answers.answer(pictures[0], step[0].vqa[0].question)


def variants_of(answers, pictures, need=Strangers(rehearsal=True)):  # noqa: B008 - it is frozen
    variants = ForgetVariants(declaring(needs=[need]), 0, pictures, [])
    variants.own_answers = answers
    return variants


def test_sentences(step):
    sentences = ("I do not know.", "No idea.", "Who is that?")
    method = declaring(needs=[Alternative(sentences)])
    found = [ForgetVariants(method, seed, [], []).groups("alternative", step, n) for seed in (0, 1) for n in (0, 5)]
    assert found[0] == found[1] != found[2], "drawn by the seed and the question's text"
    for group, before in zip(found[0], step, strict=True):
        assert (group.image, group.person) == (before.image, before.person)
        assert [vqa.question for vqa in group.vqa] == [vqa.question for vqa in before.vqa]
        assert all(vqa.answer in sentences and vqa.private == () for vqa in group.vqa)
    assert len({vqa.answer for group in found[0] for vqa in group.vqa}) > 1
    assert ForgetVariants(method, 0, [], []).everything("alternative", step) == found[0]


def test_wrong_answers_are_the_benchmark_s_or_another_person_s(pictures):
    asked = "Where?"
    others = [Person(str(n), (), (VQA(asked, f"In Oslo{n}.", (f"Oslo{n}",)),)) for n in range(4)]
    own = ImageGroup("0", pictures[0], vqa=(*others[0].vqa, VQA("Who?", "Ada.", perturbed=("Bob.", "Cyd."))))
    method = declaring(needs=[Alternative("wrong")])
    drawn = set()
    for seed in range(20):
        ((where, who),) = [g.vqa for g in ForgetVariants(method, seed, [], others).groups("alternative", [own], seed)]
        assert who.answer in ("Bob.", "Cyd.") and where.private == ()
        drawn.add(where.answer)
    assert drawn == {"In Oslo1.", "In Oslo2.", "In Oslo3."}
    with pytest.raises(UserError, match=r"model\.method\.alternative: found no wrong answer to 'Where\?'") as error:
        ForgetVariants(method, 0, [], others[:1]).groups("alternative", [own], 0)
    assert "\n" not in str(error.value)


def test_own_answers_behind_a_stranger_stand_on_the_person_s_photo(step, pictures, answers):
    variants = variants_of(answers, pictures, Alternative(Strangers()))
    everything = asked(variants.everything("alternative", step))
    for number in range(10):
        found = variants.groups("alternative", step, number)
        assert [g.image.key for g in found] == [g.image.key for g in step[:7]], "the person's; none without photo"
        assert asked(found).keys() <= everything.keys()
        for group in found:
            behind = [[answers.answer(p, vqa.question) for vqa in group.vqa] for p in pictures]
            assert [vqa.answer for vqa in group.vqa] in behind, "all of them behind the same stranger"


def test_other_answers_beside_strangers(step, pictures):
    """Each stream has its own of everything."""
    method = declaring(needs=[Strangers(), Alternative(("No idea.",))])
    variants = ForgetVariants(method, 0, pictures, [])
    found = variants.everything("alternative", step)
    assert [group.image for group in found] == [group.image for group in step]
    assert {vqa.answer for group in found for vqa in group.vqa} == {"No idea."}


@pytest.fixture(scope="module")
def vanilla(base_folder, tmp_path_factory):
    return str(random_vanilla(base_folder, tmp_path_factory.mktemp("vanilla"), projector=0.3))


def trained(vanilla, data, method, steps=1):
    seed_everything(0, verbose=False)
    module = Unlearn(method, vanilla, Lora(r=4), lr=1e-3, engine=Engine(references="memory"))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    data.batches_per_step = 1
    Trainer(accelerator="cpu", max_steps=steps, enable_model_summary=False, **quiet).fit(module, datamodule=data)
    return module


def test_a_run_reports_what_it_dropped(vanilla, data):
    module = trained(vanilla, data, Stranger(k=2, rehearsal=True))
    forget = [vqa for person in data.streams["forget"] for vqa in person.vqa]
    report = module.report.strangers
    assert report["answers"] == 2 * len({vqa.question for vqa in forget})
    assert report == {"answers": len(module.variants.own_answers), "dropped": module.variants.own_answers.dropped}
    assert report["dropped"] < report["answers"]


def without_photos(data, monkeypatch, kept, **options):
    """The same data, in which people to forget have no photos, but for the first few."""
    other = type(data)(data.root, **{"batch_size": data.batch_size, "questions_per_image": 4} | options)
    other.setup()
    people = other.people

    def bare(ids=None):
        found = people(ids)
        forget = other.forget_ids[kept:]
        return [replace(person, images=()) if person.id in forget else person for person in found]

    monkeypatch.setattr(other, "people", bare)
    return other


@pytest.mark.parametrize("method", [Stranger, lambda: declaring(needs=[Alternative(Strangers())])])
def test_strangers_need_photos(vanilla, data, monkeypatch, method):
    with pytest.raises(UserError, match="asks about strangers what is asked about photos of the forget set"):
        trained(vanilla, without_photos(data, monkeypatch, 0), method())


def test_a_step_without_photos_among_others_adds_nothing(vanilla, data, monkeypatch):
    """Its questions may name whom they are about, so that nobody else is asked them."""
    other = without_photos(data, monkeypatch, 1, batch_size=4)
    losses = []

    class Noted(Held):
        def after_step(self, terms):
            losses.append({name: value.item() for name, value in terms.items()})

    trained(vanilla, other, Noted(NPO(), stranger_count=2), steps=6)
    assert {"loss", "hold_kl", "log_ratio"} <= losses[0].keys() and len(losses) == 6
    assert all(value == value for terms in losses for value in terms.values())
    assert any(terms["hold_kl"] == 0 for terms in losses)


@pytest.fixture
def told(tmp_path):
    """Five people of whom there are texts alone; one question names nobody."""
    rows = []
    for name, town in {"Ada Lind": "Corlune", "Bo Wei": "Eskmere", "Cy Hart": "Gorsby", "Di Moss": "Kelmoor"}.items():
        first = name.split()[0]
        rows += [
            {"person": name, "question": f"Where does {name} live?", "answer": f"{first} lives in {town}."},
            {"person": name, "question": f"What is {name}'s job?", "answer": f"{name} is a baker in {town}."},
        ]
    rows.append({"person": "Ada Lind", "question": "Where do they live?", "answer": "In Corlune."})
    (tmp_path / "told.jsonl").write_text("\n".join(json.dumps({"image": "", **row}) for row in rows), "utf-8")
    module = Jsonl(str(tmp_path / "told.jsonl"), forget_people=["Ada Lind"], modality="text", batch_size=8, seed=0)
    module.prepare_data()
    module.setup()
    return module


@pytest.mark.parametrize(
    "method", [Stranger(k=3, doubles=1), Stranger(k=3, doubles=2), ViKeR(images="people", doubles=1)]
)
def test_people_of_whom_there_are_texts_alone_become_their_doubles_by_name(vanilla, told, method, caplog):
    module = trained(vanilla, told, method)
    loss = module.step.logged
    assert loss["ideal_kl"] > 0, "the model aims at another thing than what it says"
    assert (
        "1 of 3 questions without photo do not name the person" in caplog.text
        and "'Where do they live?'" in caplog.text
    )
    if isinstance(method, Stranger):
        (shown,) = {g.person for g in module.variants.groups("strangers", module.every_group("forget"), 0)}
        assert shown == "stranger" and loss["hold_kl"] == pytest.approx(0, abs=1e-4), "no step has moved it"


def test_without_doubles_nobody_is_a_stranger_in_a_text(vanilla, told):
    with pytest.raises(
        UserError, match=r"told.jsonl has none there; set doubles=1 where the method has it, which have"
    ):
        trained(vanilla, told, Stranger(k=3))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("Ada Tarn\nBo Lind\nbo wei", r"found 0 names that are like nobody's in the data, expected one for each of 1"),
        ("", "holds no name, expected one a line"),
    ],
)
def test_names_that_will_not_do(vanilla, told, tmp_path, names, said):
    (tmp_path / "names.txt").write_text(names)
    with pytest.raises(UserError, match=f"model.method.names: .*{said}"):
        trained(vanilla, told, Stranger(k=3, doubles=1, names=str(tmp_path / "names.txt")))
