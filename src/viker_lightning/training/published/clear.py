"""CLEAR as published (somvy/multimodal_unlearning mm/, whose lines are named; benchmarks.md 2.2, 2.4, 2.8)."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product

from typing_extensions import override

from viker_lightning.data.datasets import Benchmark
from viker_lightning.data.encoding import Template
from viker_lightning.data.prompts import CAPTION_QUESTIONS, NAME_QUESTION
from viker_lightning.data.records import VQA, ImageGroup, Labels, MultipleChoice
from viker_lightning.evaluation.summary import KEPT, Numbers, numbers
from viker_lightning.metrics import model_utility
from viker_lightning.metrics.prediction import Prediction

from .base import LETTER_REQUEST, Published, list_options, option_of


class PublishedCLEAR(Published):
    """CLEAR's scripts: mm/dataset.py, mm/eval.py and calculate_metrics.py. Methods stay ours.

    **Training.** The answer counts, without end of sequence; the question for a caption is another one each time
    (dataset.py L118, L324-339, config/model_config.yaml L63). Here it is drawn by seed and step.

    **Evaluation.** Answers are generated without the image; the question for a caption is drawn anew for the true, the
    paraphrased and the wrong captions; the truth ratio takes the mean of the wrong answers over the whole task. Names
    with options, of which CLEAR has none, are asked as MMUnlearner does (benchmarks.md 3.3): options ``A. name``, read
    off the first letter or digit; the line that asks for a letter is MLLMU-Bench's.

    Not as published: questions are drawn by seed; all rows are asked in place of the first 300 (see
    ``data.max_people``).

    Args:
        data: the benchmark.
    """

    labels = Labels.UNENDED
    redraws = True
    blind = True
    max_new_tokens = 300
    pools_wrong_answers = True

    def __init__(self, data: Benchmark) -> None:
        self.data = data

    @override
    def template(self, own: Template) -> Template:
        """LLaVA's text has a space before ``ASSISTANT:`` and one behind the answer."""
        if "\nASSISTANT:" not in own.question:
            return own
        around = {name: getattr(own, name) for name in ("question", "text_question")}
        spaced = {name: text.replace("\nASSISTANT:", " ASSISTANT:") for name, text in around.items()}
        return replace(own, **spaced, answer=own.answer + " ")

    @override
    def training_group(self, group: ImageGroup, labels: Labels, seed: str) -> ImageGroup:
        draw = random.Random(f"{seed}/{group.person}")

        def drawn(vqa: VQA) -> str:
            return draw.choice(CAPTION_QUESTIONS) if vqa.question in CAPTION_QUESTIONS else vqa.question

        vqa = tuple(replace(vqa, question=drawn(vqa)) for vqa in group.vqa)
        return super().training_group(replace(group, vqa=vqa), labels, seed)

    @override
    def ask_open(self, vqa: VQA, group: ImageGroup) -> list[VQA]:
        """Draws the question for a caption once for each of the three loaders."""
        photo = f"{self.data.seed}/{group.person}/{group.image.key if group.image else ''}"

        def question(loader: str) -> str:
            if vqa.question in CAPTION_QUESTIONS:
                return random.Random(f"{loader}/{photo}").choice(CAPTION_QUESTIONS)
            return vqa.question + " " * (vqa.question == NAME_QUESTION)

        true, *others = super().ask_open(vqa, group)
        loaders = ["base"] * bool(vqa.paraphrase) + ["perturbed"] * len(vqa.perturbed)
        return [
            replace(q, question=question(loader), labels=Labels.UNENDED)
            for q, loader in zip([true, *others], ["own", *loaders], strict=True)
        ]

    @override
    def ask_choice(self, choice: MultipleChoice, group: ImageGroup) -> str:
        return f"{choice.question}\n{list_options(choice.options, '. ')}\n{LETTER_REQUEST}"

    @override
    def read_option(self, text: str, options: Sequence[str]) -> str:
        first = re.search(r"[^\W_]", text)
        return option_of(first[0] if first else "", options)

    @override
    def task_of(self, question: str) -> str:
        """``name``, ``caption`` or ``world``; empty for a text-only row of TOFU, which CLEAR never asks."""
        if question in CAPTION_QUESTIONS:
            return "caption"
        if question == NAME_QUESTION:
            return "name"
        return "" if question in self._text_only_questions else "world"

    @override
    def compares_with_gold(self, question: str) -> bool:
        """Captions are, names are not (calculate_metrics.py reads ``eval_log_forget`` alone)."""
        return self.task_of(question) != "name"

    @cached_property
    def _text_only_questions(self) -> frozenset[str]:
        """Questions that are asked in text-only rows alone."""
        modalities = {"image": ("image",), "text": ("text",), "both": ("text", "image")}[self.data.modality]
        asked: dict[str, set[str]] = {"text": set(), "image": set()}
        for modality, split in product(modalities, self.data.splits):
            asked[modality] |= {vqa.question for group in self.data.evaluation(split, modality) for vqa in group.vqa}
        return frozenset(asked["text"] - asked["image"])

    @override
    def overall(self, predictions: Sequence[Prediction]) -> Numbers:
        """Model utility and the columns of CLEAR's table (benchmarks.md 2.4), of its six tasks."""
        tasks: dict[str, Numbers] = {}
        for split in ("forget", *KEPT):
            open_questions = [p for p in predictions if p.split == split and p.task == "generation"]
            for task in sorted({self.task_of(p.question) for p in open_questions} - {""}):
                scores = numbers([p for p in open_questions if self.task_of(p.question) == task], None, self)
                captions = task == "caption" and split in ("forget", "retain")
                probability = scores.get("answer_probability" if captions else "relative_probability")
                row = {
                    "probability": probability,
                    "rouge": scores["rouge_l_recall"],
                    "truth": scores.get("truth_ratio"),
                }
                tasks[f"{split}/{task}"] = {name: value for name, value in row.items() if value is not None}

        def mean(splits: Sequence[str], names: Sequence[str]) -> float | None:
            rows = [row for key, row in tasks.items() if key.partition("/")[0] in splits]
            chosen = [row[name] for row in rows for name in names if name in row]
            return model_utility(chosen) if chosen else None

        columns = {
            "model_utility": mean(KEPT, ("probability", "rouge", "truth")),
            "clear_real": mean(("real", "general"), ("probability", "truth")),
            "clear_retain": mean(("retain",), ("probability", "truth")),
            "clear_forget": mean(("forget",), ("probability", "truth")),
        }
        return {name: value for name, value in columns.items() if value is not None}
