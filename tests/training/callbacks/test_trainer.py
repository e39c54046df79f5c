"""A trained model is evaluated on the GPU, although Lightning has taken it to the CPU by then."""

from types import SimpleNamespace
from unittest.mock import Mock

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, SingleDeviceStrategy

from viker_lightning.training.callbacks.trainer_parts import back_on_device


def trainer(kind):
    strategy = Mock(spec=kind)
    strategy.root_device = torch.device("cuda", 1)
    return SimpleNamespace(strategy=strategy)


def test_a_model_goes_back_unless_it_is_shared_out():
    for kind, calls in ((SingleDeviceStrategy, 1), (ModelParallelStrategy, 0)):
        module = Mock()
        back_on_device(trainer(kind), module)
        assert module.to.call_count == calls
        if calls:
            module.to.assert_called_with(torch.device("cuda", 1))
