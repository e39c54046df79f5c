"""Which benchmarks have a published way, and that it runs."""

import pytest

from viker_lightning.data.datasets import CLEAR, MLLMU, FIUBench, Jsonl, UMUBench
from viker_lightning.data.records import Split
from viker_lightning.errors import UserError
from viker_lightning.evaluation import CORRECTED, predict, summarise
from viker_lightning.training import published
from viker_lightning.training.published import PublishedCLEAR, PublishedMLLMU, protocol_of


def test_only_two_benchmarks_have_one(data, tmp_path):
    assert published.authors_of(data) is None and protocol_of(data) is CORRECTED
    for kind, authors in ((MLLMU, PublishedMLLMU), (CLEAR, PublishedCLEAR)):
        assert type(published.authors_of(kind(protocol="published"))) is authors
        assert type(protocol_of(kind(protocol="published"))) is authors
    for kind in (Jsonl, UMUBench, FIUBench):
        with pytest.raises(UserError, match=rf"data.protocol: found 'published', but {kind.__name__} has only"):
            kind(str(tmp_path), protocol="published")


def test_a_claim_alone_is_not_enough():
    class Mine(Jsonl):
        published = True

    with pytest.raises(UserError, match=r"data.protocol: Mine says .*, but training/published does not have it"):
        published.authors_of(Mine("people.jsonl", protocol="published"))


def test_published_runs_on_a_real_model(mllm, clear, mllmu, monkeypatch):
    monkeypatch.setattr(PublishedCLEAR, "max_new_tokens", 3)
    for protocol in (clear, mllmu):
        groups = [g for m in ("image", "text") for g in protocol.data.evaluation(Split.FORGET, m)[:2]]
        found = predict(mllm, groups, protocol=protocol, max_new_tokens=3)
        assert [len(p.log_probs) > 0 for p in found] == [p.task == "generation" for p in found]
        assert {p.protocol for p in found} == {"published"}
        assert summarise(found, found, protocol=protocol)["forget"]["n"] > 0
        wanted = sum(len(g.vqa) for g in groups)
        assert sum(p.task == "generation" for p in found) == wanted
