"""Prompts that begin alike: read once, each answered as if it were alone."""

import io

import pytest
import torch
from PIL import Image

from support.families import FAMILIES, random_model
from support.marks import quick
from viker_lightning.data.records import Picture
from viker_lightning.models import Prompt, PromptPrefixes, answer_alone

KNOWN = [name for name in FAMILIES if name != "gemma3"]


def picture(width, height, seed):
    noise = torch.randint(0, 255, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    buffer = io.BytesIO()
    Image.fromarray(noise.numpy()).save(buffer, "PNG")
    return Picture(buffer.getvalue(), f"noise {seed}")


EXAMPLES = [picture(84, 84, 1), picture(140, 70, 2)]
PEOPLE = [picture(70, 126, 3), picture(84, 84, 4), picture(98, 56, 5)]
QUESTIONS = ["Who is it?", "Who is it that lives there?", "Where?", "Where?"]


def written(mllm, parts):
    """A prompt of pictures and texts by turns."""
    text, images = "", []
    for part in parts:
        if isinstance(part, Picture):
            images.append(part)
            shape = mllm.vision.shape(mllm.base, part)
            text += mllm.family.image_text(mllm.encoder.template.image_token, shape)
        else:
            text += part
    return Prompt(mllm.encoder.sequence(text), images)


def behind_examples(mllm, people=PEOPLE):
    before = ["USER: ", EXAMPLES[0], " A person. Answer: Ada\n", EXAMPLES[1], " Another. Answer: Bo\n"]
    return [written(mllm, [*before, person, f" {q} ASSISTANT:"]) for person in people for q in QUESTIONS]


def text_only(mllm):
    return [written(mllm, [f"USER: Who is Ada? Answer: a baker\nUSER: {q} ASSISTANT:"]) for q in QUESTIONS]


@pytest.fixture
def passes(monkeypatch):
    """How many tokens pass the language model in each call, and how many of transformers' generations there are."""
    from viker_lightning.models import MLLM, prefixes

    seen = {"tokens": [], "alone": 0}
    run = MLLM.run

    def counted(self, ids, *args):
        seen["tokens"].append(ids.shape[1])
        return run(self, ids, *args)

    def alone(*args):
        seen["alone"] += 1
        return answer_alone(*args)

    def kept(self, ids, positions, mask, features=(), cache=None, prefix_tokens=0):
        return counted(self, ids, positions, mask, features, cache, prefix_tokens)

    monkeypatch.setattr(MLLM, "run", kept)
    monkeypatch.setattr(prefixes, "answer_alone", alone)
    return seen


@pytest.mark.parametrize("name", quick([*KNOWN, "windowed"], ["llava", "qwen2_vl"]))
def test_answers_are_those_of_each_prompt_alone(name, passes):
    """Whatever the family, whether it packs or not, with images of several shapes and without any."""
    mllm = random_model(name)
    for prompts in (behind_examples(mllm), text_only(mllm)):
        wanted = [answer_alone(mllm, p.ids, p.pictures, 8) for p in prompts]
        assert len(set(wanted)) > 1
        assert PromptPrefixes(mllm).answers("some", prompts, 8) == wanted
    assert passes["alone"] == (0 if name in KNOWN else 12 + 4)


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "qwen3_vl"])
def test_logits_are_those_of_each_prompt_alone(name, monkeypatch):
    """To rounding: of the first token and of the second, also where the beginning was read before."""
    mllm = random_model(name)
    seen = []
    head = mllm.head.forward
    monkeypatch.setattr(mllm.head, "forward", lambda hidden: seen.append(head(hidden)) or seen[-1])
    prefixes, prompts = PromptPrefixes(mllm), behind_examples(mllm)
    for some in (prompts[:4], prompts[4:]):
        seen.clear()
        prefixes.answers("some", some, 2)
        first, second = seen[-2:]
        assert len(first) == len(some)
        kept = iter(second)
        for p, logits in zip(some, first, strict=True):
            seen.clear()
            answer_alone(mllm, p.ids, p.pictures, 2)
            torch.testing.assert_close(logits, seen[0].reshape(-1), rtol=1e-4, atol=1e-4)
            if len(seen) > 1:
                torch.testing.assert_close(next(kept), seen[1].reshape(-1), rtol=1e-4, atol=1e-4)


def test_examples_and_images_are_read_once(passes):
    mllm = random_model("llava")
    mllm.packs  # noqa: B018
    passes["tokens"].clear()
    prompts, prefixes = behind_examples(mllm), PromptPrefixes(mllm)
    longest = max(len(p.ids) for p in prompts)
    prefixes.answers("some", prompts[:4], 1)
    (first,) = passes["tokens"]
    assert first < longest + 4 * 20
    prefixes.answers("some", prompts[4:8], 1)  # the examples are there already
    shared = next(i for i, (a, b) in enumerate(zip(prompts[0].ids, text_only(mllm)[0].ids, strict=False)) if a != b)
    assert shared < 10
    assert passes["tokens"][1] < longest - 2 * 16 + 4 * 20
    prefixes.answers("others", prompts[4:8], 1)
    assert passes["tokens"][2] > passes["tokens"][1] + 2 * 16
    assert passes["alone"] == 0


def test_small_budgets_change_nothing(passes):
    mllm = random_model("llava")
    prompts = behind_examples(mllm)
    prefixes = PromptPrefixes(mllm)
    wanted = prefixes.answers("some", prompts, 6)
    whole = len(passes["tokens"])
    mllm.max_sequence_tokens = 40
    assert PromptPrefixes(mllm).answers("some", prompts, 6) == wanted
    assert len(passes["tokens"]) > 2 * whole


def test_what_is_kept_is_bounded():
    mllm = random_model("llava")
    prefixes = PromptPrefixes(mllm)
    prompts = behind_examples(mllm)
    for name in ("a", "b", "c"):
        prefixes.answers(name, prompts, 2)
    rooms = [cache.room for _, cache in prefixes._kept.values()]
    assert len(set(rooms)) == 1 and list(prefixes._kept) == ["a", "b", "c"] and rooms[0] < len(prompts[0].ids)
    mllm.max_tokens = 2 * rooms[0]
    prefixes.answers("a", prompts, 2)
    assert list(prefixes._kept) == ["c", "a"]
    wanted = [answer_alone(mllm, p.ids, p.pictures, 2) for p in prompts]
    mllm.max_tokens = 1
    assert prefixes.answers("a", prompts, 2) == wanted and not prefixes._kept


def test_prompts_longer_than_a_window_are_asked_alone(passes):
    """The check that decides about packing is shorter than these."""
    mllm = random_model("windowed")
    text = mllm.base.config.get_text_config()
    mllm.packs = True
    prompts = text_only(mllm)
    assert max(len(p.ids) for p in prompts) > text.sliding_window
    wanted = [answer_alone(mllm, p.ids, p.pictures, 4) for p in prompts]
    assert PromptPrefixes(mllm).answers("some", prompts, 4) == wanted
    assert passes["alone"] == len(prompts)
