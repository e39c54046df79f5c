"""Fully sharded training (FSDP2): every process holds a part of the language model's weights."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from typing_extensions import override

from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, decoder_layers
from viker_lightning.models.dtensor import distribute_as, gather


class FSDP2(ModelParallelStrategy):
    """Shards the language model over all processes; data is split as with DDP.

    Checkpoints hold whole tensors of what is trained, in one file, so that a run may be resumed on another number of
    processes, or with another strategy.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    @override
    def setup_environment(self) -> None:
        """Makes one group of all processes; Lightning's own default would be tensor parallel."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        """Checkpoints are ordinary ones, which the trainer restores."""
        return True

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """What is trained, whole; to be called by all processes."""
        assert self.lightning_module is not None
        named = self.lightning_module.named_parameters()
        return {name: gather(p.detach()).cpu() for name, p in named if p.requires_grad}

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Hands every process its part; the module has checked the names."""
        assert self.lightning_module is not None
        saved = checkpoint["state_dict"]
        with torch.no_grad():
            for name, p in self.lightning_module.named_parameters():
                if name in saved:
                    p.copy_(distribute_as(saved[name], p))

    @override
    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """State of an optimizer, whole; to be called by all processes."""
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer._optimizer
        found = optimizer.state_dict()
        state = {i: {k: _whole_on_cpu(v) for k, v in values.items()} for i, values in found["state"].items()}
        return {**found, "state": state}

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state = {
                i: {k: distribute_as(v, parameters[i]) if k != "step" else v for k, v in values.items()}
                for i, values in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Writes an ordinary checkpoint on the first process."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    @override
    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads an ordinary checkpoint on every process."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)


def shard(mllm: MLLM, mesh: DeviceMesh) -> None:
    """Shards a model over a mesh: each decoder layer, the input embedding with all that is left, the output embedding.

    Vision tower and projector stay whole, and so does an output embedding that is tied to the input embedding.
    Embeddings are gathered when a step begins and given back when it ends; decoder layers come and go one by one.

    Args:
        mllm: the model, adapted already.
        mesh: one-dimensional, of all processes.

    Raises:
        UserError: if the model is quantized, or has no list of layers.
    """
    if mllm.quantized:
        raise UserError("trainer.strategy: FSDP2 cannot shard quantized weights; use ddp, or leave model.quantize out")
    model, head, language_model = mllm.base.model, mllm.head, mllm.language_model
    inside = {id(p) for p in language_model.parameters()}
    tied = any(id(p) in inside for p in head.parameters())
    ignored = {p for p in model.parameters() if id(p) not in inside} | (set(head.parameters()) if tied else set())
    for layer in decoder_layers(language_model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params=ignored, reshard_after_forward=False)
    if not tied:
        fully_shard(head, mesh=mesh, reshard_after_forward=False)
    gathered: tuple[Any, ...] = (model,) if tied else (model, head)
    for module in gathered:  # how often they are used is each process's own affair
        module.set_reshard_after_backward(False, recurse=False)
        module.set_requires_gradient_sync(False, recurse=False)
    mllm.keep_in_step(model, head)


def _whole_on_cpu(value: Any) -> Any:
    return gather(value).cpu() if isinstance(value, Tensor) else value
