"""Evaluation, sampled answers, growth with people, and kept features."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from measure import alternate

from models import MODELS, questions, text
from viker_lightning.data.packing import PADDING
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.prompts import choice_prompt, cloze_prompt
from viker_lightning.data.records import VQA, Cloze, ImageGroup, MultipleChoice, Split
from viker_lightning.evaluation import predict
from viker_lightning.ideal import IdealDistribution
from viker_lightning.methods import Batch, GradientAscent, Stranger, Strangers
from viker_lightning.models import MLLM, Sampling, generate, sample
from viker_lightning.training.streams import ForgetVariants

TOKENS = 50
"""Of an answer, at most."""


class OneByOne:
    """Evaluation as published scripts do it: every question by itself, inputs and pixels prepared beforehand."""

    def __init__(self, mllm: MLLM) -> None:
        self.mllm = mllm
        self._inputs: dict = {}

    def _prepared(self, group: ImageGroup, question: str, answer: str = ""):
        key = (group.person, question, answer)
        if key not in self._inputs:
            mllm = self.mllm
            encoded = mllm.encoder.encode(VQA(question, answer), True)
            said = encoded.answer if answer else ()
            ids = torch.tensor([[*mllm.prefix(group.image), *encoded.prompt, *said]])
            more = mllm.family.plain_inputs(mllm.base, mllm.processor, [group.image.open()], ids)
            self._inputs[key] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **more}, len(said)
        return self._inputs[key]

    def generate(self, group: ImageGroup, question: str) -> str:
        """Greedy answer by transformers."""
        inputs, _ = self._prepared(group, question)
        out = self.mllm.base.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        return self.mllm.encoder.decode(out[0, inputs["input_ids"].shape[1] :].tolist())

    def sample(self, group: ImageGroup, question: str, n: int) -> list[str]:
        """So many answers drawn by transformers at temperature 1, decoded together."""
        inputs, _ = self._prepared(group, question)
        draw = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "num_return_sequences": n}
        out = self.mllm.base.generate(**inputs, max_new_tokens=TOKENS, **draw)
        return [self.mllm.encoder.decode(row[inputs["input_ids"].shape[1] :].tolist()) for row in out]

    def score(self, group: ImageGroup, question: str, answer: str) -> float:
        """Mean log-probability of an answer."""
        inputs, n = self._prepared(group, question, answer)
        logits = self.mllm.base(**inputs, use_cache=False).logits[0, -n - 1 : -1].float()
        return logits.log_softmax(-1).gather(-1, inputs["input_ids"][0, -n:, None]).mean().item()

    @torch.no_grad()
    def everything(self, groups: list[ImageGroup]) -> list:
        """Open questions with the probability of the true answer, clozes, and choices by likelihood of the options."""
        found: list = []
        for g in groups:
            for q in g.vqa:
                found += [self.generate(g, q.question), self.score(g, q.question, q.answer)]
            found += [self.generate(g, cloze_prompt(c.question)) for c in g.clozes]
            for c in g.choices:
                found += [self.score(g, choice_prompt(c.question, c.options), option) for option in c.options]
        return found


def evaluation_section(name: str, repeats: int) -> list[dict]:
    """Greedy answers to 6 questions on each of 8 images; then all tasks on 2 images."""
    mllm = MODELS[name]().eval()
    pictures = irrelevant_images("scenes", 8, seed=9, size=336)
    open_only = [ImageGroup(str(i), p, Split.FORGET, questions(6, start=10 * i)) for i, p in enumerate(pictures)]
    tasks = [
        replace(
            g,
            clozes=tuple(Cloze(f"{text(i, 8)} __ {text(i + 1, 4)}", "x") for i in range(2)),
            choices=tuple(MultipleChoice(text(i, 10), tuple(text(i + j, 3) for j in range(4)), 0) for i in range(2)),
        )
        for g in open_only[:2]
    ]
    one = OneByOne(mllm)
    said: dict = {}

    def plain_generation() -> None:
        with torch.no_grad():
            said["plain"] = [[one.generate(g, q.question) for q in g.vqa] for g in open_only]

    def fresh(route):
        def run() -> None:
            mllm.vision.forget()  # every picture is seen once in an evaluation
            route()

        return run

    runs = {
        "generation/one by one": plain_generation,
        "generation/packed": fresh(lambda: said.update(packed=generate(mllm, open_only, TOKENS))),
        "all tasks/one by one": lambda: said.update(plain_all=one.everything(tasks)),
        "all tasks/packed": fresh(lambda: said.update(packed_all=predict(mllm, tasks, max_new_tokens=TOKENS))),
    }
    seconds = alternate(runs, repeats, lambda key: None)
    equal = {"generation": said["plain"] == said["packed"]}
    plain_texts = [x for x in said["plain_all"] if isinstance(x, str)]
    plain_scores = [x for x in said["plain_all"] if isinstance(x, float)]
    texts, scores = [], []
    for p in said["packed_all"]:
        if p.task != "choice":
            texts.append(p.answer)
        if p.task == "generation":
            scores.append(sum(p.log_probs) / len(p.log_probs))
        elif p.task == "choice":
            scores += p.log_probs
    close = max(abs(a - b) for a, b in zip(plain_scores, scores, strict=True))
    equal["all tasks"] = plain_texts == texts and close < 1e-4
    counts = {"generation": 48, "all tasks": sum(len(g.vqa) + len(g.clozes) + len(g.choices) for g in tasks)}
    return [
        {
            "what": what,
            "questions": n,
            "one_by_one_seconds": seconds[f"{what}/one by one"],
            "packed_seconds": seconds[f"{what}/packed"],
            "speedup": seconds[f"{what}/one by one"] / seconds[f"{what}/packed"],
            "same_answers": equal[what],
        }
        for what, n in counts.items()
    ]


def sampling_section(name: str, repeats: int) -> list[dict]:
    """Answers drawn a CPU second: 16 to each of 6 questions on each of 2 images."""
    pictures = irrelevant_images("scenes", 2, seed=9, size=336)
    groups = [ImageGroup(str(i), p, Split.FORGET, questions(6, start=10 * i)) for i, p in enumerate(pictures)]
    return sampled(MODELS[name]().eval(), groups, 16, repeats)


def sampled(mllm: MLLM, groups: list[ImageGroup], n: int, repeats: int) -> list[dict]:
    """The rates at which answers are drawn: by transformers, each by itself and those to a question together; and ours.

    Transformers answers one question of each image, which is enough to tell.
    """
    one, first = OneByOne(mllm), [(g, g.vqa[0].question) for g in groups]
    said: dict = {}

    def ours() -> None:
        mllm.vision.forget()
        said["ours"] = [t for g in sample(mllm, groups, Sampling(n, TOKENS)) for q in g for t in q]

    def plainly(what: str, together: int) -> None:
        said[what] = [t for g, q in first for t in one.sample(g, q, together)]

    runs = {
        "one by one": lambda: plainly("one by one", 1),
        "a question's together": lambda: plainly("a question's together", n),
        "ours": ours,
    }
    with torch.no_grad():
        seconds = alternate(runs, repeats, lambda key: None, time.process_time)
    rates = {what: len(said[what]) / seconds[what] for what in runs}
    return [
        {
            "what": what,
            "answers": len(said[what]),
            "cpu_seconds": seconds[what],
            "answers_per_cpu_second": rate,
            "of_one_by_one": rate / rates["one by one"],
        }
        for what, rate in rates.items()
    ]


def people_section(name: str, repeats: int) -> list[dict]:
    """What the store costs and takes for 50, 100 and 200 people with one question each."""
    mllm = MODELS[name]().train()
    irrelevant = irrelevant_images("scenes", 5, size=336)
    rows = []
    for n in (50, 100, 200):
        asked = [VQA(f"{q.question} {i}", q.answer) for i, q in enumerate(questions(n))]
        encoded = [mllm.encoder.encode(q, True) for q in asked]
        with tempfile.TemporaryDirectory() as folder:
            os.environ["VIKER_LIGHTNING_CACHE"] = folder
            count = iter(range(1000))

            def build(encoded=encoded, folder=folder, count=count) -> None:
                os.environ["VIKER_LIGHTNING_CACHE"] = f"{folder}/{next(count)}"
                IdealDistribution(mllm, irrelevant, "disk").prepare(encoded)

            def read(encoded=encoded) -> None:
                IdealDistribution(mllm, irrelevant, "disk").prepare(encoded)

            seconds = alternate({"build": build, "find": read}, repeats, lambda key: None)
            files = list(Path(folder, "0").rglob("part-*.safetensors"))
            size = sum(f.stat().st_size for f in files) / 2**20
        rows.append({"people": n, "build_seconds": seconds["build"], "find_seconds": seconds["find"], "mib": size})
        print(f"  {rows[-1]}", flush=True)
    return rows


def strangers_section(name: str, repeats: int) -> list[dict]:
    """A step of Stranger against one of gradient ascent, on 4 images with 3 questions each; k = 20, CPU seconds."""
    mllm = MODELS[name]().train()
    photos, portraits = (irrelevant_images(kind, k, size=336) for kind, k in (("scenes", 4), ("people", 20)))
    groups = [ImageGroup(str(i), picture, vqa=questions(3, start=10 * i)) for i, picture in enumerate(photos)]
    encoded = mllm.pack(groups).encoded
    held: dict[int, list[ImageGroup]] = {}  # by how many strangers are shown
    for few in (1, 2, 4):
        method = Stranger()
        method.needs = (Strangers(per_step=few),)
        for step in range(20):
            about = ForgetVariants(method, 0, portraits, []).groups("strangers", groups, step)
            held.setdefault(len(about), about)
    ideal = IdealDistribution(mllm, portraits, "memory", each=True)
    seconds: dict = {}
    seconds |= alternate({"prepare": lambda: IdealDistribution(mllm, portraits).prepare(encoded)}, 1, lambda key: None)
    ideal.prepare(encoded)
    ideal.release()

    def gradient_ascent() -> None:
        GradientAscent().loss(Batch({"forget": mllm.answer_tokens(mllm.pack(groups))}))["loss"].backward()

    def stranger(few: int) -> None:
        forget, about = mllm.pack(groups), mllm.pack(held[few])
        said = ideal.behind([picture for r in about.row_of if (picture := about.pictures[r])], about.encoded)
        assert said is not None
        tokens = {"forget": mllm.answer_tokens(forget), "strangers": mllm.answer_tokens(about)}
        references = {("forget", "irrelevant"): ideal.reference(forget), ("strangers", "own"): said}
        method.loss(Batch(tokens, references))["loss"].backward()

    runs = {"gradient ascent": gradient_ascent}
    runs |= {f"Stranger, {few} shown": lambda few=few: stranger(few) for few in held}
    seconds |= alternate(runs, repeats, lambda key: mllm.zero_grad(), time.process_time)
    rows = {"gradient ascent": groups} | {f"Stranger, {few} shown": [*groups, *about] for few, about in held.items()}
    return [
        {
            "step": step,
            "sequences": len(shown),
            "tokens": mllm.pack(shown).segments.ne(PADDING).sum().item(),
            "cpu_seconds": seconds[step],
            "of_gradient_ascent": seconds[step] / seconds["gradient ascent"],
            "asked_once_per_question": seconds["prepare"] / len(encoded) if step != "gradient ascent" else 0.0,
        }
        for step, shown in rows.items()
    ]


def features_section(name: str, repeats: int) -> list[dict]:
    """Features of 8 pictures: computed, taken from memory, read from disk."""
    mllm = MODELS[name]().eval().requires_grad_(False)
    pictures = irrelevant_images("scenes", 8, seed=3, size=336)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VIKER_LIGHTNING_CACHE"] = folder
        for keep in ("off", "memory", "disk"):
            mllm.vision.keep = keep
            mllm.vision.forget()
            found = alternate({keep: lambda: mllm.vision.features(mllm.base, pictures)}, repeats, lambda key: None)
            rows.append({"kept": keep, "seconds_per_picture": found[keep] / len(pictures)})
    return rows
