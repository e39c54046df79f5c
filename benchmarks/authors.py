"""MLLMU-Bench as published, against what its authors' script does (franciscoliu/MLLMU-Bench at 0e3098e, eval.py)."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from measure import alternate
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from models import MODELS, text
from viker_lightning.cli.main import main as command_line
from viker_lightning.data.datasets import MLLMU
from viker_lightning.data.embedded.benchmark_folder import image_cell, write_config
from viker_lightning.data.embedded.write_mllmu import FULL_SCHEMA, SPLIT_SCHEMA, TEST_SCHEMA, TRAIN_SCHEMA
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.prompts import cloze_prompt
from viker_lightning.data.records import Split
from viker_lightning.evaluation import predict
from viker_lightning.metrics import Prediction
from viker_lightning.metrics.text import bleu_mllmu, rouge_l, rouge_n
from viker_lightning.models import MLLM
from viker_lightning.storage.runs.write import read_predictions
from viker_lightning.training.published import PublishedMLLMU
from viker_lightning.training.published.base import LETTER_REQUEST, list_options, option_of

CONFIG = Path(__file__).parents[1] / "configs/mllmu/published.yaml"

TOKENS = 50
"""Of an answer, at most."""

MODES = {Split.FORGET: "forget_5", Split.TEST: "Test_Set", Split.RETAIN: "retain_95", Split.REAL: "Retain_Set"}
"""What the script asks, in its order."""

IMAGE, ALONE = "Image_Textual", "Pure_Text"
OPEN = "Answer the question based on your trained knowledge in one sentence {}in ENGLISH."


def write_benchmark(root: Path, people: int) -> None:
    """So many people in each split, with as many questions as MLLMU-Bench has: 10 choices, 4 clozes, 4 open ones."""
    photos = [p.data for p in irrelevant_images("people", 4 * people, seed=5, size=336)]
    rows = [_row(i, photos[i]) for i in range(3 * people)]
    forget, retain, real = (rows[i * people : (i + 1) * people] for i in range(3))
    tests = [row | {"images": [image_cell(photos[3 * people + i], "pose.png")]} for i, row in enumerate(forget)]
    metadata = json.dumps([{"Question": text(3, 6), "Answer": text(4, 7)}])
    write_config(root, "ft_Data", TRAIN_SCHEMA, [row | {"metadata": metadata} for row in [*forget, *retain]])
    write_config(root, "Full_Set", FULL_SCHEMA, [*forget, *retain])
    write_config(root, "forget_5", SPLIT_SCHEMA, forget)
    write_config(root, "retain_95", SPLIT_SCHEMA, retain)
    write_config(root, "Test_Set", TEST_SCHEMA, tests)
    write_config(root, "Retain_Set", FULL_SCHEMA, real)


def _row(i: int, photo: bytes) -> dict[str, Any]:
    choices = [
        {
            "Question": text(7 * i + j, 9),
            "Options": {letter: text(i + j + o, 3) for o, letter in enumerate("ABCD")},
            "Correct_Answer": "ABCD"[j % 4],
        }
        for j in range(10)
    ]
    numbers = [(j, kind) for kind in (IMAGE, ALONE) for j in range(2)]
    return {
        "ID": f"{i + 1:03d}",
        "image": image_cell(photo, f"{i}.png"),
        "Classification_Task": {f"{IMAGE}_Questions": choices[:5], f"{ALONE}_Questions": choices[5:]},
        "Generation_Task": [
            {"Question": text(10 * i + j, 10), "Ground_Truth": text(10 * i + j + 50, 19), "Type": kind}
            for j, kind in numbers
        ],
        "Mask_Task": [
            {"Question": f"{text(5 * i + j, 8)} __ {text(i + j, 3)}", "Ground_Truth": text(j, 1), "Type": kind}
            for j, kind in numbers
        ],
    }


class AsSaid(PublishedMLLMU):
    """Asks as published, and takes a multiple-choice answer as it was generated, for comparison."""

    def read_option(self, text: str, options: Sequence[str]) -> str:
        """The whole answer."""
        return text


@dataclass(frozen=True)
class Said:
    """What the script has of one question."""

    split: Split
    task: str
    answer: str
    truth: str
    options: dict[str, str]

    def read(self) -> str:
        """The answer as scored: of a choice the option that its first character names."""
        return option_of(self.answer[:1], [*self.options.values()]) if self.options else self.answer


class AuthorsScript:
    """The script on a CPU, in fp32: files read once a task, images opened once a person, questions one by one.

    Its prompts, processor calls and greedy ``generate``; the people of its examples are those that our seed draws.
    """

    def __init__(self, model: Path, root: Path, protocol: PublishedMLLMU, max_new_tokens: int) -> None:
        self.folder, self.root, self.protocol, self.max_new_tokens = model, root, protocol, max_new_tokens
        self.said: list[Said] = []
        self.load()

    def load(self) -> None:
        """Loads model and processor."""
        self.processor = AutoProcessor.from_pretrained(self.folder)
        self.model = LlavaForConditionalGeneration.from_pretrained(self.folder).eval()

    @torch.no_grad()
    def ask(self) -> None:
        """Asks all modes and tasks."""
        self.said = [
            one for split in MODES for task in ("cloze", "choice", "generation") for one in self._task(split, task)
        ]

    def score(self) -> list[float]:
        """What it computes of every answer."""
        found: list[float] = []
        for one in self.said:
            if one.task != "generation":
                found.append(one.truth.lower() in one.read().lower())
                continue
            pair = one.answer, one.truth
            found += [bleu_mllmu(*pair), rouge_n(*pair, 1), rouge_n(*pair, 2), rouge_l(*pair)]
        return found

    def _task(self, split: Split, task: str) -> Iterator[Said]:
        shown = self._examples(split, task)
        opened = [_open(row["image"]) for row in shown]
        for row in self._rows(MODES[split]):
            image = _open(row["images"][0] if split == Split.TEST else row["image"])
            for kind in (IMAGE, ALONE):
                if row["ID"] in [one["ID"] for one in shown]:
                    continue
                before = [(i, example) for i, one in enumerate(shown) for example in _questions(one, task, kind)]
                text = "".join(_example(task, kind, *example) for _, example in before)
                images = [*(opened[i] for i, _ in before), image] if kind == IMAGE else None
                for question, truth, options in _questions(row, task, kind):
                    answer = self._answer(text + _prompt(task, kind, question), images)
                    yield Said(split, task, answer, truth, options)

    def _answer(self, prompt: str, images: list[Image.Image] | None) -> str:
        inputs = self.processor(images=images, text=prompt, return_tensors="pt")
        out = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        return self.processor.decode(out[0][2:], skip_special_tokens=True).split("ASSISTANT:")[1].strip()

    def _examples(self, split: Split, task: str) -> list[dict[str, Any]]:
        if task == "generation":
            return []
        group = self.protocol.data.evaluation(split, "image")[0]
        people = [person.person for person in self.protocol.preceding_people(group, task)]
        return [row for row in self._rows("Full_Set") if row["ID"] in people]

    def _rows(self, config: str) -> list[dict[str, Any]]:
        return [row for file in sorted((self.root / config).glob("*")) for row in pq.read_table(file).to_pylist()]


def _open(cell: dict[str, Any]) -> Image.Image:
    return Image.open(BytesIO(cell["bytes"])).convert("RGB")


def _questions(row: dict[str, Any], task: str, kind: str) -> list[tuple[str, str, dict[str, str]]]:
    """With true answers and options."""
    if task == "choice":
        asked = row["Classification_Task"][f"{kind}_Questions"]
        return [(f"{q['Question']}\n{_listed(q)}", q["Options"][q["Correct_Answer"]], q["Options"]) for q in asked]
    asked = [q for q in row["Mask_Task" if task == "cloze" else "Generation_Task"] if q["Type"] == kind]
    return [(cloze_prompt(q["Question"]) if task == "cloze" else q["Question"], q["Ground_Truth"], {}) for q in asked]


def _listed(question: dict[str, Any]) -> str:
    return list_options([*question["Options"].values()], ": ")


def _example(task: str, kind: str, question: str, truth: str, options: dict[str, str]) -> str:
    """L344-416, L596-608."""
    if task == "cloze":
        return f"USER:{'<image>' * (kind == IMAGE)}\n{question}\nCorrect Answer: {truth}\n"
    letter = next(letter for letter, option in options.items() if option == truth)
    return f"USER:{' <image>' * (kind == IMAGE)}\nQuestion: {question}\nCorrect Answer: {letter}\n"


def _prompt(task: str, kind: str, question: str) -> str:
    """The question itself, L361, L402, L610, L731, L751."""
    if task == "generation" and kind == IMAGE:
        return f"USER: <image>\n{question}\n{OPEN.format('accurately ')}\nASSISTANT: "
    if task == "generation":
        return f"USER: {question}\n{OPEN.format('')}\nASSISTANT:"
    how = f"\n{LETTER_REQUEST}" * (task == "choice")
    return f"USER:{' <image>' * (kind == IMAGE)}\n{question}{how}\nASSISTANT:"


def published_section(name: str, repeats: int) -> list[dict]:
    """All that eval.py asks about four people of each split, with 64 and with 576 image tokens; CPU seconds."""
    rows = []
    for tokens in (64, 576):
        mllm = MODELS[name](tokens)
        mllm.model = mllm.model.merge_and_unload()
        rows += measured(mllm, tokens, repeats)
        print(f"  {rows[-2:]}", flush=True)
    return rows


def measured(mllm: MLLM, image_tokens: int, repeats: int, people: int = 4, max_new_tokens: int = TOKENS) -> list[dict]:
    """Asking alone, and the whole command against the whole script, Python's imports aside.

    Asking begins with files and images on the authors' side, with opened data on ours; the whole is loading the model,
    asking and scoring, and on our side whatever else ``validate`` does.
    """
    mllm.base.config.get_text_config().max_position_embeddings = 4096  # as LLaVA-1.5, so that all examples fit
    with tempfile.TemporaryDirectory() as folder:
        model, root = Path(folder, "model"), Path(folder, "data")
        mllm.save(model)
        root.mkdir()
        write_benchmark(root, people)
        return _compared(model, root, image_tokens, repeats, max_new_tokens)


def _compared(model: Path, root: Path, image_tokens: int, repeats: int, max_new_tokens: int) -> list[dict]:
    data = MLLMU(str(root), forget=5, stage="unlearn", protocol="published", modality="both", splits=[*MODES])
    data.prepare_data()
    data.setup()
    mllm = MLLM.load(str(model)).eval()
    script = AuthorsScript(model, root, PublishedMLLMU(data), max_new_tokens)
    said: dict[str, list[Prediction]] = {}
    turns = count()

    def ask() -> None:
        mllm.vision.forget()  # every picture is seen once in an evaluation
        groups = data.evaluation_groups()
        said["asking"] = predict(mllm, groups, protocol=AsSaid(data), max_new_tokens=max_new_tokens)

    def validate() -> None:
        run = root.parent / f"run-{next(turns)}"
        os.environ["VIKER_LIGHTNING_CACHE"] = str(run / "cache")
        options = [f"--data.root={root}", "--data.modality=both", f"--model.vanilla={model}"]
        options += [f"--trainer.default_root_dir={run}", f"--evaluation.max_new_tokens={max_new_tokens}"]
        options += [f"--data.splits=[{','.join(MODES)}]", "--trainer.accelerator=cpu"]
        options += ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
        command_line(["validate", f"--config={CONFIG}", *options])
        said["whole command"] = [p for _, p in read_predictions(run / "predictions-validate.parquet")]

    routes = {
        "asking/authors": script.ask,
        "asking/ours": ask,
        "the rest/authors": lambda: (script.load(), script.score()),
        "whole command/ours": validate,
    }
    seconds = alternate(routes, repeats, lambda key: None, time.process_time)
    seconds["whole command/authors"] = seconds["asking/authors"] + seconds["the rest/authors"]
    theirs = {"asking": [(one.split, one.task, one.answer) for one in script.said]}
    theirs["whole command"] = [(one.split, one.task, one.read()) for one in script.said]
    return [
        {
            "what": what,
            "image_tokens": image_tokens,
            "questions": len(found),
            "authors_seconds": seconds[f"{what}/authors"],
            "our_seconds": seconds[f"{what}/ours"],
            "speedup": seconds[f"{what}/authors"] / seconds[f"{what}/ours"],
            "same_answers": sorted((p.split, p.task, p.answer) for p in found) == sorted(theirs[what]),
        }
        for what, found in said.items()
    ]
