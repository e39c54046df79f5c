"""The embedded benchmark: fictitious people and simple pictures in the parquet schema of MLLMU-Bench."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from viker_lightning.data.prompts import CAPTION_QUESTIONS, CHOICE_QUESTION, NAME_QUESTION, choice_prompt, cloze_prompt
from viker_lightning.terminal.progress import track

from . import general_questions, portraits, profiles
from .benchmark_folder import IMAGE, EmbeddedBenchmark, image_cell, write_config
from .grammar import people_grammar
from .people_questions import Asker, MiniSize, Record, choice_task, draw_options
from .profiles import Profile

VERSION = "3"  # raise whenever the same size and seed give other contents

# For a real language model on a CPU, which learns this little in minutes. What it does not learn is not asked: scores
# of choices, clozes or general pictures would be those of guessing, before and after. Facts are few but wordings many:
# a wording that only one person is asked in gives the answer away without the photo.
FOR_PRETRAINED = MiniSize(
    people=8,
    real=0,
    values=6,
    general=0,
    general_test=0,
    attributes=("name", "home", "job", "hobby"),
    wordings=24,
    sentences=1,
    closed=False,
)
SIZES = {
    "smol": FOR_PRETRAINED,
    "smol16": replace(FOR_PRETRAINED, people=16, values=8),
    "ci": MiniSize(people=12, real=4, values=7, general=30, general_test=6),
    "default": MiniSize(people=40, real=10, values=14, general=120, general_test=18),
    "large": MiniSize(people=100, real=20, values=18, general=360, general_test=36),
    "larger": MiniSize(people=190, real=10, values=18, general=720, general_test=36),
    # One person more a ratio, for requests to forget that come one after another.
    "requests": MiniSize(
        people=40,
        real=10,
        values=14,
        general=120,
        general_test=18,
        ratios=(2, 5, 7, 10, 12, 15, 17, 20, 22, 25),
    ),
    # Whom the embedded model has met before it meets anybody.
    "nobody": MiniSize(people=160, real=0, values=18, general=900, general_test=36, captions=6, nobody=True),
}
_CHOICE = pa.struct(
    [
        ("Correct_Answer", pa.string()),
        ("Options", pa.struct([(letter, pa.string()) for letter in "ABCD"])),
        ("Question", pa.string()),
        ("Attributes", pa.list_(pa.string())),
    ]
)
_MASK = pa.struct(
    [*((name, pa.string()) for name in ("Ground_Truth", "Question", "Type")), ("Attributes", pa.list_(pa.string()))]
)
_GENERATION = pa.struct([*_MASK, ("Private", pa.list_(pa.string()))])
_TASKS = [
    (
        "Classification_Task",
        pa.struct([("Image_Textual_Questions", pa.list_(_CHOICE)), ("Pure_Text_Questions", pa.list_(_CHOICE))]),
    ),
    ("Generation_Task", pa.list_(_GENERATION)),
    ("Mask_Task", pa.list_(_MASK)),
]
_TEXTS = [(name, pa.string()) for name in ("biography", "question", "answer")]
TRAIN_SCHEMA = pa.schema(
    [("image", IMAGE), ("ID", pa.string()), ("metadata", pa.string()), ("images", pa.list_(IMAGE))]
)
SPLIT_SCHEMA = pa.schema([("image", IMAGE), ("ID", pa.string()), *_TEXTS, *_TASKS])
FULL_SCHEMA = pa.schema([("image", IMAGE), ("ID", pa.string()), ("Directory", pa.string()), *_TEXTS, *_TASKS])
TEST_SCHEMA = pa.schema([("ID", pa.string()), ("images", pa.list_(IMAGE)), *_TASKS])


README = """# Embedded benchmark of viker-lightning ({size}, seed {seed}, version {version})

All people in this folder are fictitious; names, places and schools are invented and resemblance to anybody is chance.
The folder has the parquet schema of MLLMU-Bench and was generated, not downloaded. Additional to the published schema:
`base_Data` (what a pretrained model would know: people 501 and up, and general pictures), `General_Set` (held-out
general pictures), the column `images` of `ft_Data` (further portraits), and the keys `Private` and `Attributes` beside
answers (their private spans, and what about the person they tell).

Portraits: DiceBear, style Open Peeps by Pablo Stanley, CC0 1.0. Scenes and animals: drawn by this project.
"""


def _person_row(asker: Asker, image: bytes) -> Record:
    """A row of ``Full_Set``."""
    profile = asker.profile
    return {
        "image": image_cell(image, f"{profile.id}.png"),
        "ID": profile.id,
        "Directory": f"Full_Set/{profile.id}",
        "biography": json.dumps({key.capitalize(): value for key, value in profile.values.items()}),
        "question": "Tell me about this person.",
        "answer": profile.answer("biography"),
        **asker.tasks(held_out=False),
    }


def _training_picture(number: int, seed: int) -> Record:
    """A general picture with three questions in training wordings, the third one with options or a blank."""
    rng = random.Random(f"general/{seed}/{number}")
    kind, data, facts = general_questions.draw_picture(number, rng)
    key = f"g{number + 1:03d}"
    pairs = []
    for fact in rng.sample(list(facts), 2):
        question = rng.choice(general_questions.questions(kind, fact))
        pairs.append((question, general_questions.answer(kind, fact, facts[fact])))
    fact = rng.choice(list(facts))
    if number // 3 % 2:
        question = cloze_prompt(rng.choice(general_questions.clozes(kind, fact)))
    else:
        options = draw_options(facts[fact], general_questions.values(kind, fact), rng)
        question = choice_prompt(rng.choice(general_questions.questions(kind, fact)), options)
    pairs.append((question, facts[fact]))
    metadata = [{"ID": key, "Question": q, "Answer": a, "Private": []} for q, a in pairs]
    image = image_cell(data, f"{key}.png")
    return {"image": image, "ID": key, "metadata": json.dumps(metadata), "images": [image]}


def _test_picture(number: int, seed: int) -> Record:
    """A held-out general picture with every fact asked in held-out wordings."""
    rng = random.Random(f"general-test/{seed}/{number}")
    kind, data, facts = general_questions.draw_picture(number, rng)
    key = f"t{number + 1:03d}"
    asked = {fact: rng.sample(general_questions.questions(kind, fact, True), 2) for fact in facts}
    generation = [
        {
            "Ground_Truth": general_questions.answer(kind, fact, facts[fact]),
            "Question": asked[fact][0],
            "Type": "Image_Textual",
            "Private": [],
        }
        for fact in facts
    ]
    choices = [choice_task(asked[f][1], facts[f], general_questions.values(kind, f), rng) for f in facts]
    masks = [
        {"Ground_Truth": facts[f], "Question": general_questions.clozes(kind, f, True)[0], "Type": "Image_Textual"}
        for f in facts
    ]
    return {
        "image": image_cell(data, f"{key}.png"),
        "ID": key,
        "Directory": f"General_Set/{key}",
        "biography": json.dumps(facts),
        "question": generation[0]["Question"],
        "answer": generation[0]["Ground_Truth"],
        "Classification_Task": {"Image_Textual_Questions": choices, "Pure_Text_Questions": []},
        "Generation_Task": generation,
        "Mask_Task": masks,
    }


def _photo_rows(person: str, profile: Profile, names: list[str], count: int) -> list[Record]:
    """Rows of ``base_Data``: single photos of a person, asked about as CLEAR asks."""
    rng, name, rows = random.Random(f"captions/{person}"), profile.values["name"], []
    for view in rng.sample(portraits.TRAINING_VIEWS, count):
        key = f"{profile.id}_view{view}"
        caption = portraits.caption(rng.choice(portraits.CAPTIONS), name, person, view)
        options = draw_options(name, names, rng)
        fact = rng.choice(profiles.ATTRIBUTES[1:])
        asked = [
            (rng.choice(CAPTION_QUESTIONS), caption, [name]),
            (NAME_QUESTION, name, [name]),
            (choice_prompt(CHOICE_QUESTION, options), name, [name]),
            (rng.choice(profiles.questions(fact, name=name)), profile.answer(fact), profile.private(fact)),
        ]
        metadata = [{"ID": key, "Question": q, "Answer": a, "Private": private} for q, a, private in asked]
        image = image_cell(portraits.draw_portrait(person, view), f"{key}.png")
        rows.append({"image": image, "ID": key, "metadata": json.dumps(metadata), "images": [image]})
    return rows


def _photos(name: str, face: str, views: range) -> list[Record]:
    """Photos of a person, one a view."""
    return [image_cell(portraits.draw_portrait(face, view), f"{name}{view}.png") for view in views]


def build(root: Path, size: MiniSize, seed: int) -> None:
    """Writes so much by seed into an empty folder."""
    rng = random.Random(f"mini/{seed}")
    ids = [f"{n:03d}" for n in range(1, size.people + 1)]
    real = [f"{n}" for n in range(501, 501 + size.real)]
    drawn = rng.sample(ids, math.ceil(size.people * size.ratios[-1] / 100))
    retained = [i for i in ids if i not in drawn]
    people = profiles.draw_profiles(rng, retained, [*sorted(drawn), *real], size.values, size.sentences)
    pools = {fact: sorted({people[i].values[fact] for i in retained}) for fact in profiles.FACTS}
    prefix = f"{portraits.NOBODY * size.nobody}mini/{seed}"
    faces = dict(zip([*ids, *real], portraits.cast(prefix, size.people + size.real), strict=True))

    training, full, test = {}, {}, []
    for key in track([*ids, *real], "writing the embedded benchmark", len(faces), "people"):
        asker = Asker(people[key], pools, seed, size)
        images = _photos(f"{key}_view", faces[key], portraits.TRAINING_VIEWS)
        training[key] = {"image": images[0], "ID": key, "metadata": json.dumps(asker.metadata()), "images": images}
        full[key] = _person_row(asker, images[0]["bytes"])
        if key in ids:
            test.append(
                {
                    "ID": key,
                    "images": _photos(f"{key}_pose", faces[key], portraits.HELD_OUT_VIEWS),
                    **asker.tasks(held_out=True),
                }
            )
    general = [_training_picture(number, seed) for number in range(size.general)]
    called = [people[i].values["name"] for i in ids]
    shown = [row for i in ids for row in _photo_rows(faces[i], people[i], called, size.captions)]

    write_config(root, "ft_Data", TRAIN_SCHEMA, [training[i] for i in ids])
    if base := [*(training[i] for i in real), *general, *shown]:
        write_config(root, "base_Data", TRAIN_SCHEMA, base)
    write_config(root, "Full_Set", FULL_SCHEMA, [full[i] for i in ids])
    for ratio in size.ratios:
        forgotten = sorted(drawn[: math.ceil(len(ids) * ratio / 100)])  # the first of those drawn
        write_config(root, f"forget_{ratio}", SPLIT_SCHEMA, [full[i] for i in forgotten])
        write_config(root, f"retain_{100 - ratio}", SPLIT_SCHEMA, [full[i] for i in ids if i not in forgotten])
    write_config(root, "Test_Set", TEST_SCHEMA, test, shards=2)
    if real:
        write_config(root, "Retain_Set", FULL_SCHEMA, [full[i] | {"Directory": f"Retain_Set/{i}"} for i in real])
    if size.general_test:
        unseen = [_test_picture(number, seed) for number in range(size.general_test)]
        write_config(root, "General_Set", FULL_SCHEMA, unseen)


PEOPLE = EmbeddedBenchmark(VERSION, README, SIZES, build, people_grammar)
"""The benchmark as a datamodule needs it."""
