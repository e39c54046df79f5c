"""A whole pass over the forget set, then one over the retain set: the steps that MLLMU-Bench's scripts take."""

from collections import Counter

import pytest

from viker_lightning.data.records import VQA, Person
from viker_lightning.data.sampling import PassSampler, StepSampler


@pytest.fixture
def streams():
    def crowd(name, count):
        return [Person(f"{name}{i}", (), tuple(VQA(f"{i} {j}?", "a") for j in range(7))) for i in range(count)]

    return {"forget": crowd("f", 3), "retain": crowd("r", 5)}


def asked(steps, name):
    return Counter((chunk[0], q) for step in steps for chunk in step.get(name, ()) for q in chunk[2])


def test_passes_take_turns(streams):
    """M10: as published no step sees both sets; as corrected every step does, and the retain set never ends."""
    sampler = PassSampler(streams, 2, 3)
    steps = list(sampler)
    assert len(steps) == len(sampler) and [len(step) for step in steps] == [1] * len(steps)
    names = [name for step in steps for name in step]
    assert names == sorted(names) and set(names) == {"forget", "retain"}
    for name, people in streams.items():
        everything = {(i, q) for i, person in enumerate(people) for q in range(len(person.vqa))}
        assert asked(steps, name) == Counter(everything)
    corrected = list(StepSampler(streams, 2, 3))
    assert all(set(step) == {"forget", "retain"} for step in corrected)
    assert len(corrected) == names.count("forget")


def test_passes_follow_seed_and_epoch(streams):
    sampler = PassSampler(streams, 2, 3)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first and asked(list(sampler), "retain") == asked(first, "retain")


@pytest.mark.parametrize("done", [1, 5, 9])
def test_a_resumed_epoch_goes_on_where_it_stopped(streams, done):
    whole = list(PassSampler(streams, 2, 3))
    resumed = PassSampler(streams, 2, 3)
    resumed.done = done
    assert list(resumed) == whole[done:]
    assert list(resumed) == whole  # the next epoch


def test_processes_share_each_pass(streams):
    parts = [list(PassSampler(streams, 2, 3, rank=r, world_size=2)) for r in range(2)]
    assert [list(step) for step in parts[0]] == [list(step) for step in parts[1]]  # the same pass at the same time
    whole = list(PassSampler(streams, 2, 3))
    for name in streams:
        together = [step for pair in zip(*parts, strict=True) for step in pair if name in step]
        alone = [step for step in whole if name in step]
        assert together[: len(alone)] == alone and len(together) - len(alone) < 2
