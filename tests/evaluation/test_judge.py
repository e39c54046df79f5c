"""Who judges the coherence of a gold model: the vanilla model that unlearning begins with."""

from types import SimpleNamespace

from viker_lightning.callbacks import Evaluation
from viker_lightning.datasets.mllmu import MLLMU


def test_a_gold_model_is_judged_by_the_vanilla_model_of_its_people(data, monkeypatch):
    """The YAML of the vanilla run stands for its weights, whoever is to be forgotten."""
    gold = MLLMU(data.root, stage="gold", forget=5)
    gold.prepare_data()
    gold.setup()
    assert gold.everybody() == data.everybody()
    asked = []
    monkeypatch.setattr("viker_lightning.callbacks.evaluation.vanilla_model", lambda *given: asked.append(given) or "w")
    evaluation = Evaluation(judge="configs/mini/vanilla.yaml")
    evaluation.setup(SimpleNamespace(datamodule=gold, is_global_zero=False), None, "validate")
    assert evaluation.judge == "w" and asked == [("configs/mini/vanilla.yaml", gold, "evaluation.judge")]
