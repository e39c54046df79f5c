"""The summary as a torchmetrics metric: two processes give the numbers of one, to the last bit."""

import json
import random
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from viker_lightning.evaluation import SummaryMetric, in_order, summarise
from viker_lightning.metrics import Prediction


def answers():
    """Answers about four people, whose sums round differently in another order."""
    generator = random.Random(0)
    found = []
    for split in ("forget", "retain"):
        for person in range(4):
            for number in range(3):
                log_probs = [-generator.random() * 3 for _ in range(5)]
                said = " ".join(generator.choices(["she", "lives", "in", "Oslo", "Rome"], k=6))
                one = Prediction(split, str(person), "generation", number, "Where?", "She lives in Oslo.", said)
                one.private, one.log_probs, one.correct = ("Oslo",), log_probs, [p > -1 for p in log_probs]
                one.private_tokens, one.perturbed = [False] * 4 + [True], [-generator.random() for _ in range(3)]
                one.answer_log_prob, one.reference_log_prob = -30 * generator.random(), -20 * generator.random()
                one.log_prob_mean, one.log_prob_variance = [-2.0] * 5, [1.0] * 5
                found.append(one)
    return found


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = answers()
    results = []
    for part in (found[rank::2], found * rank):  # the second time, the first process has none
        metric = SummaryMetric(in_order, gold=found)
        metric.update(part)
        summary = metric.compute()
        assert metric.predictions == part, "each process has its own again"
        results.append([summary, [asdict(one) for one in metric.answers]])
    (Path(folder) / f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


def test_two_processes_give_the_numbers_of_one(tmp_path: Path):
    mp.start_processes(_work, args=(str(tmp_path),), nprocs=2, start_method="fork")  # no import is paid twice
    found = answers()
    whole = summarise(found, found)
    expected = json.loads(json.dumps([whole, [asdict(one) for one in found]]))
    for rank in (0, 1):
        for gathered in json.loads((tmp_path / f"{rank}.json").read_text()):
            assert gathered == expected
    assert summarise(found[::2], found) != whole


def test_it_is_a_metric_of_a_module():
    """A module may hold it, move it and cast it; after a reset it begins anew."""
    metric = SummaryMetric(in_order)
    holder = torch.nn.ModuleList([metric])
    found = answers()
    metric.update(found[::-1][:12])
    metric.update(found[:12])
    holder.to(torch.bfloat16).to("meta")
    assert metric.compute() == summarise(found) and metric.answers == found
    assert len({metric}) == 1
    metric.reset()
    assert metric.predictions == [] and metric.answers == found
