"""MLLMU-Bench as published, against a loop as its authors write it (franciscoliu/MLLMU-Bench eval.py)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from measure import alternate

from models import MODELS, questions, text
from viker_lightning.data.records import Cloze, ImageGroup, MultipleChoice, Split
from viker_lightning.evaluation import predict
from viker_lightning.metrics import Prediction
from viker_lightning.models import MLLM
from viker_lightning.pictures.irrelevant import irrelevant_images
from viker_lightning.published import PublishedMLLMU, few_shot

TOKENS = 50
"""Of an answer, at most."""


class People:
    """People of ``forget`` as MLLMU-Bench has them: 5 choices, 2 clozes, 2 open questions, with image and without."""

    seed = 0

    def __init__(self, n: int) -> None:
        self.groups = [
            ImageGroup(
                str(i),
                picture,
                Split.FORGET,
                questions(2, prompt=10, start=10 * i),
                tuple(
                    MultipleChoice(text(7 * i + j, 9), tuple(text(i + j + o, 3) for o in range(4)), j % 4)
                    for j in range(5)
                ),
                tuple(Cloze(f"{text(5 * i + j, 8)} __ {text(i + j, 3)}", "x") for j in range(2)),
            )
            for i, picture in enumerate(irrelevant_images("people", n, seed=5, size=336))
        ]

    def evaluation(self, split: Split, modality: str) -> list[ImageGroup]:
        """The same people with their image or without it."""
        return [g if modality == "image" else replace(g, image=None) for g in self.groups]

    def full_set(self, people: Sequence[str], split: Split, modality: str) -> list[ImageGroup]:
        """Some of them."""
        return [g for g in self.evaluation(split, modality) if g.person in people]


class AsSaid(PublishedMLLMU):
    """Asks as published, and takes a multiple-choice answer as it was generated, for comparison."""

    def read_option(self, text: str, options: Sequence[str]) -> str:
        """The whole answer."""
        return text


class AuthorsLoop:
    """One ``generate`` a question, behind all its examples; ids and pixels are prepared beforehand and not timed."""

    def __init__(self, mllm: MLLM, groups: Sequence[ImageGroup], protocol: PublishedMLLMU, max_new_tokens: int) -> None:
        self.mllm, self.protocol, self.max_new_tokens = mllm, protocol, max_new_tokens
        self._inputs = [inputs for group in groups for inputs in self._of(group)]

    def _of(self, group: ImageGroup):
        asked = [("generation", self.protocol.ask_open(q, group)[0].question) for q in group.vqa]
        if not self.protocol.skips(group, "cloze"):
            asked += [("cloze", self.protocol.ask_cloze(c, group)) for c in group.clozes]
        if not self.protocol.skips(group, "choice"):
            asked += [("choice", self.protocol.ask_choice(c, group)) for c in group.choices]
        return [self._prepared(group, task, question) for task, question in asked]

    def _prepared(self, group: ImageGroup, task: str, question: str) -> dict[str, torch.Tensor]:
        mllm = self.mllm
        asking = self.protocol.encoder(mllm.encoder, task, group.image is not None)
        alone = [*mllm.prefix(group.image), *asking.question(question, group.image is not None).prompt]
        if group.image is None:
            ids = torch.tensor([alone])
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        examples = [] if task == "generation" else self.protocol.image_examples(group, task)
        found, pictures = alone, [group.image]
        if examples:
            prompt = few_shot.fit_prompt(mllm, examples, group.image, question, self.max_new_tokens)
            found, pictures = prompt.ids, prompt.pictures
        ids = torch.tensor([found])
        more = mllm.family.plain_inputs(mllm.base, mllm.processor, [p.open() for p in pictures], ids)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **more}

    @torch.no_grad()
    def answers(self) -> list[str]:
        """Greedy answers by transformers."""
        found = []
        for inputs in self._inputs:
            out = self.mllm.base.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
            found.append(self.mllm.encoder.decode(out[0, inputs["input_ids"].shape[1] :].tolist()))
        return found


def published_section(name: str, repeats: int) -> list[dict]:
    """Questions of 4 people behind examples about images and without, then all questions; CPU seconds."""
    return [row for tokens in (64, 576) for row in measured(MODELS[name](tokens).eval(), tokens, repeats)]


def measured(mllm: MLLM, image_tokens: int, repeats: int, people: int = 4, max_new_tokens: int = TOKENS) -> list[dict]:
    """The same of one model."""
    mllm.base.config.get_text_config().max_position_embeddings = 4096  # as LLaVA-1.5, so that all examples fit
    data = People(people)
    protocol = AsSaid(data)
    everybody = {modality: data.evaluation(Split.FORGET, modality) for modality in ("image", "text")}
    parts = {
        "image, behind examples": [replace(g, vqa=()) for g in everybody["image"]],
        "text-only, behind examples": [replace(g, vqa=()) for g in everybody["text"]],
        "open questions": [replace(g, choices=(), clozes=()) for g in (*everybody["image"], *everybody["text"])],
    }
    parts["everything"] = [*everybody["image"], *everybody["text"]]
    theirs: dict[str, list[str]] = {}
    ours: dict[str, list[Prediction]] = {}
    runs = {}
    for what, groups in parts.items():
        if what != "everything":  # the sum of its parts
            loop = AuthorsLoop(mllm, groups, protocol, max_new_tokens)
            runs[f"{what}/authors"] = lambda what=what, loop=loop: theirs.update({what: loop.answers()})

        def fast(what=what, groups=groups) -> None:
            mllm.vision.forget()  # every picture is seen once in an evaluation
            ours.update({what: predict(mllm, groups, protocol=protocol, max_new_tokens=max_new_tokens)})

        runs[f"{what}/ours"] = fast
    seconds = alternate(runs, repeats, lambda key: None, time.process_time)
    seconds["everything/authors"] = sum(v for key, v in seconds.items() if key.endswith("/authors"))
    rows = []
    for what in parts:
        said = theirs.get(what, [text for texts in theirs.values() for text in texts])
        rows.append(
            {
                "what": what,
                "image_tokens": image_tokens,
                "questions": len(ours[what]),
                "authors_loop_seconds": seconds[f"{what}/authors"],
                "our_seconds": seconds[f"{what}/ours"],
                "speedup": seconds[f"{what}/authors"] / seconds[f"{what}/ours"],
                "same_answers": sorted(p.answer for p in ours[what]) == sorted(said),
            }
        )
        print(f"  {rows[-1]}", flush=True)
    return rows
