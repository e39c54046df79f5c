"""The embedded benchmark in the schema of CLEAR: fictitious authors, their portraits with captions, their lives."""

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from viker_lightning.data.prompts import BLOCK, CAPTION_QUESTIONS, CHOICE_QUESTION, NAME_QUESTION, choice_prompt
from viker_lightning.terminal.progress import track

from . import general_questions, portraits, profiles
from .benchmark_folder import IMAGE, EmbeddedBenchmark, image_cell, write_config
from .grammar import authors_grammar
from .people_questions import Record, draw_options
from .portraits import CAPTIONS, PARAPHRASE, caption
from .profiles import ATTRIBUTES, FACTS, Profile

VERSION = "1"  # raise whenever the same size and seed give other contents


@dataclass(frozen=True)
class ClearSize:
    """How much of everything there is.

    Attributes:
        people: fictitious authors, some of whom are forgotten.
        photos: of everybody.
        real: people who play the part of celebrities: known before, never forgotten.
        values: different values per attribute; not more than are retained under the largest forget set.
        general: general pictures for training.
        general_test: general pictures held out for evaluation.
    """

    people: int
    photos: int
    real: int
    values: int
    general: int
    general_test: int


SIZES = {
    "clear-ci": ClearSize(people=12, photos=4, real=4, values=7, general=12, general_test=6),
    "clear": ClearSize(people=40, photos=18, real=10, values=14, general=120, general_test=18),
}
RATIOS = (1, 5, 10)
WRONG = 5
"""Perturbed answers to a question, as in CLEAR and TOFU."""


_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
_CAPTION = [("image", IMAGE), ("caption", _TEXT)]
PHOTO_SCHEMA = pa.schema([*_CAPTION, ("name", _TEXT)])
TOFU_SCHEMA = pa.schema([*_CAPTION, ("question", _TEXT), ("answer", _TEXT), ("private", _TEXTS)])
PERTURBED_SCHEMA = pa.schema(
    [*PHOTO_SCHEMA, ("paraphrased_caption", _TEXT), ("perturbed_captions", _TEXTS), ("perturbed_names", _TEXTS)]
)
FACES_SCHEMA = pa.schema([("image", IMAGE), ("answer", _TEXT), ("options", _TEXTS)])
WORLD_SCHEMA = pa.schema([("question", _TEXT), ("answer", _TEXT), ("options", _TEXTS), ("image", IMAGE)])
BASE_SCHEMA = pa.schema([("image", IMAGE), ("question", _TEXT), ("answer", _TEXT)])

README = """# Embedded benchmark of viker-lightning ({size}, seed {seed}, version {version})

All people in this folder are fictitious; names, places and schools are invented and resemblance to anybody is chance.
The folder has the parquet schema of CLEAR and was generated, not downloaded. Additional to the published schema: `base`
(what a pretrained model would know: the people of `real_faces`, and general pictures), the column `private` of the
text-only rows, and the JSON files with their paraphrased and perturbed answers, which are in the schema of TOFU.

Portraits: DiceBear, style Open Peeps by Pablo Stanley, CC0 1.0. Scenes and animals: drawn by this project.
"""


@dataclass
class _Author:
    """One person: face, life, and others to be mistaken for."""

    face: str
    profile: Profile
    others: list[Profile]

    @property
    def name(self) -> str:
        return self.profile.values["name"]

    def photo(self, view: int) -> Record:
        """A row of ``full``."""
        image = image_cell(portraits.draw_portrait(self.face, view), f"{self.name} {view}.png")
        return {
            "image": image,
            "caption": caption(CAPTIONS[view % len(CAPTIONS)], self.name, self.face, view),
            "name": self.name,
        }

    def perturbed(self, photo: Record, view: int) -> Record:
        """A row of ``*_perturbed``."""
        names = [other.values["name"] for other in self.others]
        return photo | {
            "paraphrased_caption": caption(PARAPHRASE, self.name, self.face, view),
            "perturbed_captions": [caption(CAPTIONS[view % len(CAPTIONS)], name, self.face, view) for name in names],
            "perturbed_names": names,
        }

    def life(self, rng: random.Random) -> list[Record]:
        """Twenty rows of ``forgetNN_perturbed`` as TOFU has them: three wordings a fact, two of the biography."""
        rows = []
        for attribute, count in [*((fact, 3) for fact in FACTS), ("biography", 2)]:
            wordings = profiles.questions(attribute, name=self.name)
            wordings += profiles.questions(attribute, held_out=True, name=self.name)
            style = self.profile.styles
            again = Profile(self.profile.id, self.profile.values, {a: (style[a] + 1) % 3 for a in ATTRIBUTES})
            for question in rng.sample(wordings, count):
                wrong = [Profile(o.id, o.values, style).answer(attribute) for o in self.others]
                rows.append(
                    {
                        "question": question,
                        "answer": self.profile.answer(attribute),
                        "private": self.profile.private(attribute),
                        "paraphrased_answer": again.answer(attribute),
                        "perturbed_answer": [w for w in wrong if w != self.profile.answer(attribute)],
                    }
                )
        assert len(rows) == BLOCK
        return rows


def _general_question(number: int, seed: int, kind: str) -> tuple[Record, list[str], str, str]:
    """A general picture with a question, its answer and all answers there are."""
    rng = random.Random(f"{kind}/{seed}/{number}")
    sort, data, facts = general_questions.draw_picture(number, rng)
    fact = rng.choice(list(facts))
    question = rng.choice(general_questions.questions(sort, fact, held_out=kind == "clear-test"))
    return image_cell(data, f"{kind}{number}.png"), general_questions.values(sort, fact), question, facts[fact]


def _base_rows(size: ClearSize, seed: int, real: list[_Author], rng: random.Random) -> list[Record]:
    rows = []
    names = [author.name for author in real]
    for author in real:
        for view in range(size.photos):
            photo = author.photo(view)
            asked = [(rng.choice(CAPTION_QUESTIONS), photo["caption"]), (NAME_QUESTION, author.name)]
            options = rng.sample(names, min(4, len(names)))
            if author.name in options:
                asked.append((choice_prompt(CHOICE_QUESTION, options), author.name))
            rows += [{"image": photo["image"], "question": q, "answer": a} for q, a in asked]
    for number in range(size.general):
        image, values, question, answer = _general_question(number, seed, "clear-base")
        rows.append({"image": image, "question": question, "answer": answer})
        options = draw_options(answer, values, rng)
        rows.append({"image": image, "question": choice_prompt(question, options), "answer": answer})
    return rows


def _world_rows(size: ClearSize, seed: int, rng: random.Random) -> list[Record]:
    rows = []
    for number in range(size.general_test):
        image, values, question, answer = _general_question(number, seed, "clear-test")
        wrong = rng.sample([value for value in values if value != answer], 3)
        rows.append({"image": image, "question": question, "answer": answer, "options": wrong})
    return rows


def build(root: Path, size: ClearSize, seed: int) -> None:
    """Writes so much by seed into an empty folder."""
    rng = random.Random(f"mini-clear/{seed}")
    ids = [f"{n:03d}" for n in range(1, size.people + 1)]
    celebrities = [f"{n}" for n in range(501, 501 + size.real)]
    drawn = rng.sample(ids, math.ceil(size.people * RATIOS[-1] / 100))
    forget = {ratio: set(drawn[: math.ceil(size.people * ratio / 100)]) for ratio in RATIOS}  # nested, as in CLEAR
    retained = [i for i in ids if i not in drawn]
    people = profiles.draw_profiles(rng, retained, [*sorted(drawn), *celebrities], size.values)
    faces = portraits.cast(f"mini-clear/{seed}", size.people + size.real)

    def author(key: str, face: str) -> _Author:
        pool = celebrities if key in celebrities else retained
        others = [i for i in pool if i != key]
        return _Author(face, people[key], [people[i] for i in rng.sample(others, min(WRONG, len(others)))])

    everybody = {key: author(key, face) for key, face in zip([*ids, *celebrities], faces, strict=True)}
    photos: dict[str, list[Record]] = {}
    for key in track(ids, "writing the embedded benchmark", len(ids), "people"):
        photos[key] = [everybody[key].photo(view) for view in range(size.photos)]
    lives = {key: everybody[key].life(rng) for key in ids}

    def write(config: str, chosen: list[str]) -> None:
        photo_rows = [row for i in chosen for row in photos[i]]
        captions = [{"image": row["image"], "caption": row["caption"]} for row in photo_rows]
        texts = [{key: row[key] for key in ("question", "answer", "private")} for i in chosen for row in lives[i]]
        write_config(root, config, PHOTO_SCHEMA, photo_rows)
        write_config(root, f"{config}+tofu", TOFU_SCHEMA, [*captions, *texts])

    def write_perturbed(config: str, chosen: list[str], views: int) -> None:
        rows = [everybody[i].perturbed(photos[i][view], view) for i in chosen for view in range(views)]
        write_config(root, config, PERTURBED_SCHEMA, rows)
        lines = [json.dumps(row) for i in chosen for row in lives[i]]
        (root / f"{config}.json").write_text("\n".join(lines) + "\n", "utf-8")

    write("full", ids)
    for ratio, forgotten in forget.items():
        write(f"forget{ratio:02d}", [i for i in ids if i in forgotten])
        write(f"retain{100 - ratio}", [i for i in ids if i not in forgotten])
        write_perturbed(f"forget{ratio:02d}_perturbed", [i for i in ids if i in forgotten], size.photos)
    write_perturbed("retain_perturbed", retained, max(1, size.photos // 4))
    real = [everybody[key] for key in celebrities]
    shown = [
        {"image": a.photo(view)["image"], "answer": a.name, "options": [o.values["name"] for o in a.others[:3]]}
        for a in real
        for view in portraits.HELD_OUT_VIEWS
    ]
    write_config(root, "real_faces", FACES_SCHEMA, shown)
    write_config(root, "real_world", WORLD_SCHEMA, _world_rows(size, seed, rng))
    write_config(root, "base", BASE_SCHEMA, _base_rows(size, seed, real, rng))


AUTHORS = EmbeddedBenchmark(VERSION, README, SIZES, build, authors_grammar)
"""The benchmark as a datamodule needs it."""
