"""A model that says what it is told to, and what both benchmarks are asked with."""

import pytest

from viker_lightning.data.datasets import CLEAR
from viker_lightning.evaluation import answering, predict
from viker_lightning.training.published import PublishedCLEAR, PublishedMLLMU


@pytest.fixture
def mllmu(data):
    return PublishedMLLMU(data)


@pytest.fixture(scope="module")
def clear_data(cache):
    module = CLEAR("mini/clear-ci", forget=10)
    module.prepare_data()
    module.setup()
    return module


@pytest.fixture
def clear(clear_data):
    return PublishedCLEAR(clear_data)


@pytest.fixture
def asked(mllm, monkeypatch):
    """Runs predict with a model that says what it is told to, and records each prompt with its image."""
    seen = []

    def run(groups, protocol, says="B is it"):
        true = answering.answer

        def answer(model, batch, places, most):
            rows = zip(batch.row_of, batch.encoded, strict=True)
            seen.extend((batch.pictures[r], model.encoder.tokenizer.decode(q.prompt)) for r, q in rows)
            return true(model, batch, [], most)[0], [says] * len(places)

        def answer_few_shot(self, prefixes, questions, most):
            seen.extend((question.group.image, question.text) for question in questions)
            return [says] * len(questions)

        def generate(model, groups, most):
            return [[f"blind, at most {most}" if g.image is None else says for _ in g.vqa] for g in groups]

        with monkeypatch.context() as patch:
            patch.setattr(answering, "answer", answer)
            patch.setattr(answering, "generate", generate)
            patch.setattr(PublishedMLLMU, "answer_few_shot", answer_few_shot)
            return predict(mllm, groups, protocol=protocol)

    run.seen = seen
    return run
