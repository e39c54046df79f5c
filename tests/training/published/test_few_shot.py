"""Published MLLMU-Bench about an image: example people's questions with their images before the one that is asked."""

import io
import logging
import shutil
from dataclasses import replace
from itertools import groupby
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from support.families import FAMILIES, random_model
from viker_lightning.data.datasets import MLLMU
from viker_lightning.data.records import Cloze, ImageGroup, MultipleChoice, Picture, Split
from viker_lightning.evaluation import CORRECTED, FewShotQuestion, SummaryMetric, in_order, predict
from viker_lightning.models import MLLM, PromptPrefixes, answer_alone
from viker_lightning.training.callbacks import evaluation as callbacks
from viker_lightning.training.published import PublishedMLLMU, few_shot

KNOWN = [name for name in FAMILIES if name != "gemma3"]
LETTER = "Just give ONE letter representing the answer directly."
BLANK = "Please **ONLY** provide the correct answer that should replace the [Blank]."


def picture(width, height, seed):
    noise = torch.randint(0, 255, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    buffer = io.BytesIO()
    Image.fromarray(noise.numpy()).save(buffer, "PNG")
    return Picture(buffer.getvalue(), f"noise {seed}")


class People:
    """Four people of ``forget`` with photos of several shapes, and the same people in ``test`` with another photo."""

    seed = 7

    def __init__(self):
        shapes = [(84, 84), (140, 70), (70, 126), (98, 56)]
        people = [
            ImageGroup(
                str(i),
                picture(*shape, i),
                Split.FORGET,
                choices=tuple(MultipleChoice(f"Which {n} of {i}?", ("red", "blue"), (i + n) % 2) for n in range(2)),
                clozes=(Cloze(f"The {i} is __.", f"so {i}"),),
            )
            for i, shape in enumerate(shapes)
        ]
        tested = [replace(p, image=picture(84, 84, 9), split=Split.TEST) for p in people]
        self.groups = {Split.FORGET: people, Split.TEST: tested, Split.RETAIN: people[:1]}

    def evaluation(self, split, modality):
        return [g if modality == "image" else replace(g, image=None) for g in self.groups[split]]

    def full_set(self, people, split, modality):
        return [g for g in self.evaluation(Split.FORGET, modality)[::-1] if g.person in people]


@pytest.fixture
def people():
    return People()


@pytest.fixture(autouse=True)
def said_again():
    few_shot._warn_fewer.cache_clear()
    few_shot._warn_zero_shot.cache_clear()


def asked_of(people, protocol, task, split=Split.FORGET):
    """Somebody who is no example, their first question as it is asked, and what precedes it."""
    group = next(g for g in people.groups[split] if not protocol.skips(g, task))
    question = (
        protocol.ask_choice(group.choices[0], group) if task == "choice" else protocol.ask_cloze(group.clozes[0], group)
    )
    return group, question, protocol.image_examples(group, task)


def fit(*what):
    """Token ids and pictures of a prompt with as many examples as fit."""
    prompt = few_shot.fit_prompt(*what)
    return prompt.ids, prompt.pictures


def published(protocol, group, task):
    """The text of eval.py L344-370 and L596-608, written out."""
    examples = protocol.example_people(group, task)
    if task == "cloze":
        assert len(examples) == 2
        shots = [
            f"USER:<image>\nThe {e.person} is [Blank].\n{BLANK}\nCorrect Answer: so {e.person}\n" for e in examples
        ]
        return "".join(shots) + f"USER: <image>\nThe {group.person} is [Blank].\n{BLANK}\nASSISTANT:"
    (one,) = examples
    shots = [
        f"USER: <image>\nQuestion: Which {n} of {one.person}?\nA: red\nB: blue\n"
        f"Correct Answer: {'AB'[(int(one.person) + n) % 2]}\n"
        for n in range(2)
    ]
    return "".join(shots) + f"USER: <image>\nWhich 0 of {group.person}?\nA: red\nB: blue\n{LETTER}\nASSISTANT:"


@pytest.mark.parametrize("split", [Split.FORGET, Split.TEST])
@pytest.mark.parametrize("task", ["choice", "cloze"])
def test_llava_reads_the_published_text_and_images(people, task, split):
    """Ids and logits are those of transformers' processor and model for the string that eval.py writes."""
    model, protocol = random_model("llava").eval(), PublishedMLLMU(people)
    group, question, shown = asked_of(people, protocol, task, split)
    ids, pictures = fit(model, shown, group.image, question, 6)
    images = [e.image for e in protocol.example_people(group, task) for _ in range(2 if task == "choice" else 1)]
    assert pictures == [*images, group.image]
    assert all(image in [g.image for g in people.groups[Split.FORGET]] for image in images)
    text = published(protocol, group, task)
    inputs = model.processor(text=[text], images=[[p.open() for p in pictures]], return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == ids
    row = torch.tensor([ids])
    more = model.family.plain_inputs(model.base, model.processor, [p.open() for p in pictures], row)
    with torch.no_grad():
        wanted = model.base(**inputs).logits
        torch.testing.assert_close(model.base(input_ids=row, **more).logits, wanted, rtol=0, atol=0)
        swapped = model.family.plain_inputs(model.base, model.processor, [p.open() for p in pictures[::-1]], row)
        assert (model.base(input_ids=row, **swapped).logits - wanted).abs().max() > 1e-3


@pytest.mark.parametrize("name", [*KNOWN, "windowed"])
@pytest.mark.parametrize("task", ["choice", "cloze"])
def test_every_family_takes_several_images(people, name, task):
    """One user turn of the family's own template, read and answered as transformers does it."""
    model, protocol = random_model(name).eval(), PublishedMLLMU(people)
    group, question, shown = asked_of(people, protocol, task)
    ids, pictures = fit(model, shown, group.image, question, 6)
    assert len(pictures) == 3
    template = model.encoder.template
    mark = template.image_prefix.removeprefix(template.text_prefix).lstrip()
    opened, behind = template.question.split("{question}")
    turns = [template.image_prefix.replace("USER: ", shown[0].turn), shown[1].turn + mark, "USER: " + mark]
    words = [shown[0].text, shown[1].text, question + behind]
    text = "".join(turn + opened + said for turn, said in zip(turns, words, strict=True))
    assert text.count(template.image_token) == 3
    images = [p.open() for p in pictures]
    inputs = model.processor(text=[text], images=[images], return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == ids
    out = model.base.generate(**inputs, max_new_tokens=6, do_sample=False)
    wanted = model.processor.tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True).strip()
    prefixes, one = PromptPrefixes(model), FewShotQuestion(group, task, question)
    assert protocol.answer_few_shot(prefixes, [one], 6) == [wanted]
    row = torch.tensor([ids])
    more = model.family.plain_inputs(model.base, model.processor, images, row)
    with torch.no_grad():
        found = model.base(input_ids=row, attention_mask=torch.ones_like(row), **more).logits
        torch.testing.assert_close(found, model.base(**inputs).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", KNOWN)
def test_without_examples_it_is_the_prompt_of_every_other_question(people, name):
    model = random_model(name)
    image = people.groups[Split.FORGET][0].image
    ids = few_shot.write_prompt(model, [], image, "Who?")
    assert ids == [*model.prefix(image), *model.encoder.question("Who?", True).prompt]


def test_overflow_drops_examples_from_the_front(people, caplog):
    """M4: as many whole examples as the context holds beside the answer, and a line that says so once."""
    model, protocol = random_model("llava").eval(), PublishedMLLMU(people)
    group, question, shown = asked_of(people, protocol, "cloze")
    text = model.base.config.get_text_config()
    whole, last, none = (len(few_shot.write_prompt(model, shown[n:], group.image, question)) for n in range(3))
    assert whole > last > none
    for room, kept in ((whole + 6, 2), (whole + 5, 1), (last + 6, 1), (last + 5, 0), (none, 0)):
        text.max_position_embeddings = room
        ids, pictures = fit(model, shown, group.image, question, 6)
        assert pictures == [*[e.image for e in shown[2 - kept :]], group.image]
        assert ids == few_shot.write_prompt(model, shown[2 - kept :], group.image, question)
    text.max_position_embeddings = whole + 5
    caplog.clear()
    few_shot._warn_fewer.cache_clear()
    for _ in range(3):
        few_shot.fit_prompt(model, shown, group.image, question, 6)
    (line,) = caplog.records
    assert "keeps 1 of its 2 example questions" in line.getMessage() and str(whole + 5) in line.getMessage()


def test_unknown_families_stay_zero_shot(people, caplog):
    model, protocol = random_model("gemma3"), PublishedMLLMU(people)
    group, _, shown = asked_of(people, protocol, "choice")
    assert shown
    for _ in range(2):
        assert not protocol.is_few_shot(model, group, "choice")
    (line,) = [r for r in caplog.records if "without examples" in r.getMessage()]
    assert line.levelno == logging.WARNING and "Gemma3" in line.getMessage()


@pytest.fixture
def behind(monkeypatch):
    """Records what is asked behind examples, and answers it."""
    seen = []

    def answer(self, prefixes, questions, most):
        shown = [self.image_examples(one.group, one.task) for one in questions]
        seen.extend((one.group.image, one.text, len(s), most) for one, s in zip(questions, shown, strict=True))
        return ["B, I say. Answer: so\nUSER: And?\nASSISTANT: A"] * len(questions)

    monkeypatch.setattr(PublishedMLLMU, "answer_few_shot", answer)
    return seen


def test_predict_asks_behind_examples(mllm, people, behind):
    """Everybody but the examples, test people behind people of forget, with and without images; ``corrected`` never."""
    protocol, groups = PublishedMLLMU(people), people.groups[Split.FORGET] + people.groups[Split.TEST]
    found = predict(mllm, groups, protocol=protocol)
    assert [p.task for p in found].count("choice") == 2 * (4 - 1) * 2 and len(behind) == len(found)
    assert [p.task for p in found].count("cloze") == 2 * (4 - 2)
    examples = {task: {e.person for e in protocol.example_people(groups[0], task)} for task in ("choice", "cloze")}
    assert not any(p.person in examples[p.task] for p in found)
    assert {(p.task, p.answer) for p in found} == {
        ("choice", "blue"),
        ("cloze", "B, I say. Answer: so\nUSER: And?"),  # L626: only without ``ASSISTANT:``, which the prompt has
    }
    assert {(n, most) for _, _, n, most in behind} == {(2, 50)}
    assert all(p.image and p.modality == "image" and p.protocol == "published" for p in found)
    assert all(p.options == ["red", "blue"] for p in found if p.task == "choice")
    order = [(p.split, p.person, p.task, p.number) for p in found]
    backwards = predict(mllm, groups[::-1], protocol=PublishedMLLMU(people))
    assert sorted(order) == sorted((p.split, p.person, p.task, p.number) for p in backwards)
    assert {q: n for _, q, n, _ in behind[: len(found)]} == {q: n for _, q, n, _ in behind[len(found) :]}
    behind.clear()
    predict(mllm, [replace(g, choices=(), clozes=()) for g in groups], protocol=protocol)
    predict(mllm, groups[:2])
    assert not behind
    texts = predict(mllm, people.evaluation(Split.FORGET, "text"), protocol=protocol)
    assert [q for _, q, _, _ in behind] == [
        protocol.ask_cloze(g.clozes[n], g) if task == "cloze" else protocol.ask_choice(g.choices[n], g)
        for g in people.evaluation(Split.FORGET, "text")
        for task, numbers in (("cloze", range(1)), ("choice", range(2)))
        if not protocol.skips(g, task)
        for n in numbers
    ]
    assert len(texts) == len(behind) and {p.modality for p in texts} == {"text"}


def test_examples_are_of_full_set(data):
    """Those of ``test`` are people of ``forget``; nobody of ``real`` is in Full_Set, so they get none."""
    protocol = PublishedMLLMU(data)
    for task in ("choice", "cloze"):
        for split in (Split.FORGET, Split.TEST, Split.RETAIN, Split.REAL):
            group = data.evaluation(split, "image")[0]
            others = data.evaluation(Split.FORGET if split == Split.TEST else split, "image")
            shown = protocol.image_examples(group, task)
            assert {e.image.key for e in shown} <= {g.image.key for g in others}
            assert bool(shown) == (split != Split.REAL) and not CORRECTED.is_few_shot(None, group, task)
            if shown:
                texts = data.evaluation(Split.FORGET if split == Split.TEST else split, "text")
                people = [g.person for g in protocol.example_people(group, task)]
                assert people == [g.person for g in protocol.example_people(texts[0], task)]
        for modality in ("image", "text"):
            real = data.evaluation(Split.REAL, modality)[0]
            assert protocol.example_people(real, task) == [] and not protocol.skips(real, task)


@pytest.fixture(scope="module")
def rearranged(data, tmp_path_factory):
    """The embedded benchmark with Full_Set backwards, and two real people who have IDs of it."""
    root = shutil.copytree(data.folder, tmp_path_factory.mktemp("mllmu") / "rearranged")
    full, real = (root / name / "train-00000-of-00001.parquet" for name in ("Full_Set", "Retain_Set"))
    rows = pq.read_table(full)
    pq.write_table(rows.take(list(range(len(rows)))[::-1]), full)
    same = pq.read_table(real).slice(0, 2)
    ids = rows["ID"].slice(0, 2).combine_chunks()
    pq.write_table(same.set_column(same.schema.get_field_index("ID"), same.schema.field("ID"), ids), real)
    module = MLLMU(str(root))
    module.setup()
    return module


def test_examples_stand_in_the_order_of_full_set(data, rearranged):
    """eval.py L276-283 filters Full_Set by the drawn IDs: the order of the draw is lost."""
    for modality in ("image", "text"):
        drawn = []
        for module in (data, rearranged):
            group = module.evaluation(Split.RETAIN, modality)[0]
            drawn.append([g.person for g in PublishedMLLMU(module).example_people(group, "cloze")])
        assert len(drawn[0]) == 2 and drawn[0] == sorted(drawn[0]) == drawn[1][::-1]


def test_order_without_full_set(rearranged, tmp_path):
    root = shutil.copytree(rearranged.folder, tmp_path / "without", ignore=shutil.ignore_patterns("Full_Set"))
    module = MLLMU(str(root))
    module.setup()
    retained, real = (module.evaluation(split, "image")[0] for split in (Split.RETAIN, Split.REAL))
    people = [g.person for g in PublishedMLLMU(module).example_people(retained, "cloze")]
    assert len(people) == 2 and people == sorted(people)
    assert PublishedMLLMU(module).example_people(real, "cloze") == []


def test_real_people_of_the_same_id(mllm, rearranged, behind, caplog):
    """M6: drawn among ``real``, looked up in Full_Set, shown before clozes alone, their namesakes left out.

    Of two people's 36 questions 18 are left in the published shape: two times 4 clozes and once 10 choices less.
    """
    protocol = PublishedMLLMU(rearranged)
    images, texts = (rearranged.evaluation(Split.REAL, modality) for modality in ("image", "text"))
    for groups in (images, texts):
        assert [sum(protocol.skips(g, task) for g in groups) for task in ("choice", "cloze")] == [1, 2]
        theirs = protocol.example_people(groups[0], "cloze")
        assert {g.person for g in theirs} == {g.person for g in groups} and theirs[0].clozes != groups[1].clozes
        assert all(protocol.ask_choice(c, g).startswith(c.question) for g in groups for c in g.choices)
    full = {g.image.key for g in rearranged.full_set([g.person for g in images], Split.REAL, "image")}
    assert {e.image.key for e in protocol.image_examples(images[0], "cloze")} == full
    assert not full & {g.image.key for g in images}
    assert protocol.image_examples(images[0], "choice") == []
    assert protocol.ask_cloze(texts[0].clozes[0], texts[0]).count("Correct Answer: ") == sum(
        len(g.clozes) for g in protocol.example_people(texts[0], "cloze")
    )
    asked = [replace(g, vqa=()) for g in [*images, *texts]]
    found = predict(mllm, asked, protocol=protocol)
    assert {p.task for p in found} == {"choice"} and len({p.person for p in found}) == 1
    assert len(found) == sum(len(g.choices) for g in asked) / 2 and not behind
    assert "all are examples, so none is asked" in caplog.text


def test_other_seeds_show_other_people(data):
    drawn = set()
    for seed in range(6):
        again = MLLMU(data.root, seed=seed)
        again.prepare_data()
        again.setup()
        group = again.evaluation(Split.RETAIN, "image")[0]
        drawn.add(PublishedMLLMU(again).image_examples(group, "choice")[0].image.key)
    assert len(drawn) > 1


def test_embedded_people_are_asked_few_shot(mllm, data):
    """End to end on the embedded benchmark, the model's own answers."""
    protocol = PublishedMLLMU(data)
    groups = [replace(g, vqa=()) for g in data.evaluation(Split.RETAIN, "image")]
    group = next(g for g in groups if not protocol.skips(g, "choice") and not protocol.skips(g, "cloze"))
    found = predict(mllm, [group], protocol=protocol, max_new_tokens=3)
    assert len(found) == len(group.choices) + len(group.clozes)
    cloze = group.clozes[0]
    ids, pictures = fit(mllm, protocol.image_examples(group, "cloze"), group.image, protocol.ask_cloze(cloze, group), 3)
    assert found[0].answer == protocol.read_answer(answer_alone(mllm.eval(), ids, pictures, 3))


@pytest.mark.extended
@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "windowed", "gemma3"])
def test_predictions_are_those_of_each_question_alone(people, name, monkeypatch):
    """Text-only and with images, several people at once, group by group behind kept examples, and packed or not."""
    model, protocol = random_model(name), PublishedMLLMU(people)
    monkeypatch.setattr(protocol, "read_option", lambda text, options: text)  # which is seldom a letter
    groups = [*people.evaluation(Split.FORGET, "image"), *people.evaluation(Split.FORGET, "text")]
    groups += people.evaluation(Split.TEST, "image")
    how = {"protocol": protocol, "max_new_tokens": 4}
    found = predict(model, groups, **how)
    prefixes = PromptPrefixes(model)
    assert [p for g in groups for p in predict(model, [g], prefixes=prefixes, **how)] == found
    monkeypatch.setitem(model.__dict__, "packs", False)
    assert predict(model, groups, **how) == found
    assert len({p.answer for p in found}) > 1


def test_examples_are_read_once_in_an_evaluation(people, monkeypatch):
    """Tokens that pass the model: the examples, then each person's own; not the examples again for each question."""
    model, protocol = random_model("llava"), PublishedMLLMU(people)
    assert model.packs
    tokens = []
    run = MLLM.run
    monkeypatch.setattr(MLLM, "run", lambda self, ids, *more: tokens.append(ids.numel()) or run(self, ids, *more))
    for modality in ("image", "text"):
        tokens.clear()
        groups, prefixes = people.evaluation(Split.FORGET, modality), PromptPrefixes(model)
        count = sum(len(predict(model, [g], None, protocol, prefixes, max_new_tokens=1)) for g in groups)
        assert count == 3 * 2 + 2
        group = next(g for g in groups if not protocol.skips(g, "choice"))
        question = protocol.ask_choice(group.choices[0], group)
        if modality == "image":
            whole = len(
                few_shot.fit_prompt(model, protocol.image_examples(group, "choice"), group.image, question, 1).ids
            )
        else:
            whole = len(model.prefix(None)) + len(model.encoder.question(question, False).prompt)
        assert sum(tokens) < 0.75 * whole * count


def test_examples_are_kept_for_one_evaluation(mllm, monkeypatch):
    """Its batches share them; the next one has other weights."""
    seen = []
    monkeypatch.setattr(
        callbacks, "predict", lambda mllm, groups, gold, protocol, prefixes, most: seen.append(prefixes) or []
    )
    callback = callbacks.Evaluation(coherence=False)
    callback._protocol, callback._summary = CORRECTED, SummaryMetric(in_order)
    model, trainer = SimpleNamespace(mllm=mllm), SimpleNamespace(world_size=1, loggers=[])
    for when in ("before", "after"):
        for _ in range(2):
            callback.on_validation_batch_end(trainer, model, None, SimpleNamespace(content=[]))
        callback._finish(trainer, when)
    assert seen[0] is seen[1] and seen[2] is seen[3] and seen[1] is not seen[2]
    assert all(isinstance(s, PromptPrefixes) and s.mllm is mllm for s in seen) and callback._prefixes is None


def test_questions_with_the_same_examples_come_together(data):
    groups = [group for batch in data.evaluation_dataloader() for group in batch.content]
    assert len(groups) == len(data.evaluation_groups())
    alike = [key for key, _ in groupby(groups, key=lambda g: (g.split, g.image is None))]
    assert len(alike) == len(set(alike)) > 1
