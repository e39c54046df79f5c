"""Who judges the coherence of a gold model: the vanilla model that unlearning begins with."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from viker_lightning.data.datasets.mllmu import MLLMU
from viker_lightning.models import Weights
from viker_lightning.models.families import Llava, Unknown
from viker_lightning.models.families.qwen_vl import QwenVL
from viker_lightning.training.callbacks import Evaluation


def test_a_gold_model_is_judged_by_the_vanilla_model_of_its_people(data, monkeypatch):
    """The YAML of the vanilla run stands for its weights, whoever is to be forgotten."""
    gold = MLLMU(data.root, stage="gold", forget=5)
    gold.prepare_data()
    gold.setup()
    assert gold.everybody() == data.everybody()
    asked = []
    monkeypatch.setattr(
        "viker_lightning.training.callbacks.evaluation.vanilla_model", lambda *given: asked.append(given) or "w"
    )
    for stage, device in (("validate", "cpu"), ("fit", "cuda")):
        evaluation = Evaluation(judge="configs/mini/vanilla.yaml")
        evaluation.setup(trainer(gold, device), None, stage)
        assert evaluation.judge == "w" and asked.pop() == ("configs/mini/vanilla.yaml", gold, "evaluation.judge")


def test_on_a_cpu_a_judge_is_made_when_it_is_first_asked(data, monkeypatch):
    """Another run can make it while this one trains; a GPU may have no room for a second model then."""
    asked = []
    monkeypatch.setattr(
        "viker_lightning.training.callbacks.evaluation.vanilla_model", lambda *given: asked.append(given) or "w"
    )
    monkeypatch.setattr(data, "evaluation_dataloader", dict)
    evaluation = Evaluation(judge="configs/mini/vanilla.yaml")
    given = trainer(data, "cpu")
    evaluation.setup(given, None, "fit")
    assert not asked and evaluation.judge == "configs/mini/vanilla.yaml"
    monkeypatch.setattr(evaluation, "_finish", lambda *_: None)
    mllm = SimpleNamespace(together=nullcontext)
    evaluation.evaluate(given, SimpleNamespace(mllm=mllm), "after")
    assert evaluation.judge == "w" and asked == [("configs/mini/vanilla.yaml", data, "evaluation.judge")]


class Mine(Llava):
    """A family of one's own."""


@pytest.mark.parametrize(
    ("trained", "wanted"),
    [(Mine(), Mine), (Llava(), Llava), (QwenVL(), Llava), (Unknown(), Llava)],
    ids=["own", "same", "other", "unknown"],
)
def test_a_judge_is_loaded_as_the_run_loads_models(mllm, base_folder, trained, wanted):
    """Of the family of the model that is trained where it has its architecture, of another one where it has not."""
    mllm.family, mllm.trust_remote_code = trained, True
    mllm.set_budgets(300, 600)
    judge = Evaluation(judge=str(base_folder))._judge_model(SimpleNamespace(mllm=mllm, weights=Weights()))
    assert type(judge.family) is wanted and judge.trust_remote_code and judge.max_tokens == 600
    assert not judge.training and not any(p.requires_grad for p in judge.parameters())


def trainer(data, device):
    """As much of one as there is to ask."""
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(datamodule=data, is_global_zero=False, strategy=strategy, progress_bar_callback=None)
