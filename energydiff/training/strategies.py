"""How devices share a training: each has a copy of the weights (``ddp``), or a part (``fsdp2``).

Importing this module makes both names mean what is written here.

Under ``fsdp2`` every tensor of weights, gradients, optimizer state and average is cut along its
first axis, a piece to each device, and put together while it is needed (FSDP2, Zhao et al. 2023). A
score is a derivative already, so training differentiates twice, and weights must not be let go of
between the two: the whole training step is one unit, put together once. A scalar network that
writes its gradient out needs one ordinary backward, and its parts are put together one at a time.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.strategies import (
    DDPStrategy,
    ModelParallelStrategy,
    Strategy,
    StrategyRegistry,
)
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from energydiff.errors import UserError
from energydiff.potentials import ScalarNetwork
from energydiff.ranks import is_first_rank

# No collective but the gradient's, which is summed where it lies: buffers are constants, or kept
# alike by whoever changes them. PyTorch before 2.13 has an older name for it.
_OPTIONS = inspect.signature(nn.parallel.DistributedDataParallel).parameters
_SYNC = "forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers"
_DDP: dict[str, Any] = {"gradient_as_bucket_view": True, _SYNC: False}
StrategyRegistry.register("ddp", DDPStrategy, override=True, **_DDP)


class Sharded(ModelParallelStrategy):
    """``fsdp2``: every device has a part of the weights; checkpoints are those of one device.

    Raises:
        UserError: PyTorch is too old.
    """

    def __init__(self) -> None:
        require_pytorch()
        super().__init__(save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        return self._measured(super().validation_step(*args, **kwargs))

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        return self._measured(super().test_step(*args, **kwargs))

    def _measured(self, result: Any) -> Any:
        """Weights put together for a step without a backward pass would stay so, and go stale."""
        assert isinstance(self.model, FSDPModule)
        self.model.reshard()
        return result

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """All of it, on every rank: what is read of a file is plain tensors."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only=True)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(
            shared_out(checkpoint["state_dict"], self.lightning_module), strict=strict
        )

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, content in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [p for group in optimizer.param_groups for p in group["params"]]
            state = {
                number: {name: _part(value, weights[number]) for name, value in values.items()}
                for number, values in content["state"].items()
            }
            optimizer.load_state_dict(content | {"state": state})

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return whole(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return whole(Strategy.optimizer_state(self, optimizer))


StrategyRegistry.register("fsdp2", Sharded, override=True)


def require_pytorch() -> None:
    """``UserError`` if PyTorch is too old to share out weights."""
    # Parts hand tensors on in dataclasses: an FSDP2 that overlooks these frees weights early.
    if torch.__version__ < "2.13":
        raise UserError(
            f"trainer.strategy fsdp2 needs PyTorch 2.13 or later, and this is"
            f" {torch.__version__}: use ddp."
        )


def require_axes(module: nn.Module) -> None:
    """``UserError`` if a weight has no axis to be cut along."""
    scalars = [name for name, p in module.named_parameters() if not p.ndim]
    if scalars:
        raise UserError(
            f"trainer.strategy fsdp2 cuts every weight along its first axis, and {scalars[0]} is a"
            " single number: use ddp."
        )


def share_weights(module: nn.Module, mesh: DeviceMesh) -> None:
    """Leaves each device of the mesh a part of every weight, in place.

    They are put together while ``forward`` or a step of Lightning's runs, and its backward pass.

    Raises:
        UserError: a weight has no axis to be cut along.
    """
    require_axes(module)
    for weight in module.parameters():
        weight.data = weight.data.contiguous()  # FSDP2 takes no other, such as channels_last
    for network in module.modules():
        if isinstance(network, ScalarNetwork):
            for part, methods in network.parts():
                fully_shard(part, mesh=mesh)
                for method in methods:
                    register_fsdp_forward_method(part, method)
    fully_shard(module, mesh=mesh)
    for step in ("training_step", "validation_step", "test_step"):
        if hasattr(module, step):
            register_fsdp_forward_method(module, step)


def shared_out(state: Mapping[str, Any], module: nn.Module) -> dict[str, Any]:
    """Of whole tensors by name this device's parts, where the module has parts."""
    own = module.state_dict()
    return {name: _part(value, own.get(name)) for name, value in state.items()}


def _part(value: Any, own: Any) -> Any:
    if not isinstance(own, DTensor) or not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    value = value.to(own.device)
    return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)


def whole(values: Any) -> Any:
    """A nest of containers with its tensors whole and on the CPU, on the first rank alone.

    To be called on all: they send what they have.
    """

    def gathered(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        full = value.full_tensor() if isinstance(value, DTensor) else value
        return full.cpu() if is_first_rank() else None

    return tree_map(gathered, values)


def local(tensors: Iterator[Tensor]) -> list[Tensor]:
    """What this device has of each: itself, or its part in the same memory."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in (t.detach() for t in tensors)]


def share_like(module: nn.Module, other: nn.Module) -> None:
    """Cuts a module's weights as those of another with the same names are, in place."""
    for name, weight in other.named_parameters():
        if isinstance(weight, DTensor):
            _replace(module, name, _part(module.get_parameter(name).detach(), weight))


@contextmanager
def put_together(module: nn.Module) -> Iterator[None]:
    """Inside, a module whose weights are cut has them whole on every device, to be read only."""
    parts = {n: p for n, p in module.named_parameters() if isinstance(p, DTensor)}
    for name, part in parts.items():
        _replace(module, name, part.full_tensor().detach())
    try:
        yield
    finally:
        for name, part in parts.items():
            _replace(module, name, part)


def _replace(module: nn.Module, name: str, value: Tensor) -> None:
    place, _, last = name.rpartition(".")
    learned = module.get_parameter(name).requires_grad
    setattr(module.get_submodule(place), last, nn.Parameter(value, requires_grad=learned))
