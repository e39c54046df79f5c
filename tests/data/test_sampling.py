"""Which questions a training step asks: every one once an epoch, repeatable, shared among processes."""

import pytest

from viker_lightning.data.records import VQA, Person, Picture
from viker_lightning.data.sampling import StepDataset, StepSampler


@pytest.fixture
def crowd():
    picture = Picture(b"x", "x")
    return [Person(str(i), (picture,) * 3, tuple(VQA(f"q{i}{j}", "a") for j in range(7))) for i in range(5)]


@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_asks_every_question_once(crowd, epoch):
    sampler = StepSampler({"forget": crowd, "retain": crowd[:2]}, groups=2, questions_per_image=3)
    sampler.set_epoch(epoch)
    data = StepDataset(sampler.streams)
    steps = [data[step].content for step in sampler]
    assert len(steps) == len(sampler) == 8  # 5 people x 3 groups of at most 3 questions, two groups a step
    asked = [vqa.question for step in steps for group in step["forget"] for vqa in group.vqa]
    assert sorted(asked) == sorted(v.question for p in crowd for v in p.vqa)
    assert all(len(group.vqa) <= 3 for step in steps for group in step["forget"])
    assert all(len(step["retain"]) == 2 and all(g.person in "01" for g in step["retain"]) for step in steps)


def test_epochs_differ_and_repeat(crowd):
    sampler = StepSampler({"train": crowd}, 2, 3)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(StepSampler({"train": crowd}, 2, 3, seed=1)) != first


def test_processes_share_an_epoch(crowd):
    whole = list(StepSampler({"train": crowd}, 2, 3))
    parts = [list(StepSampler({"train": crowd}, 2, 3, rank=r, world_size=3)) for r in range(3)]
    assert len({len(p) for p in parts}) == 1
    merged = [step for round_ in zip(*parts, strict=True) for step in round_]
    assert merged[: len(whole)] == whole
