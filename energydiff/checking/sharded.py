"""What a model answers where each of several processes has a part of its weights.

As ``trainer.strategy fsdp2`` trains it: weights are put together while the model is asked, and
their gradients scattered in the backward pass, as the mean over the processes.
"""

import multiprocessing
import pickle
import tempfile
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessException, start_processes

from energydiff.checking.measures import Answers, Asked, States, answers
from energydiff.derivatives import full_precision
from energydiff.energies import Energy
from energydiff.errors import UserError
from energydiff.registry import class_name

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
CPU_RANKS = 2


def require_shareable(energy: Energy, device: torch.device) -> None:
    """``UserError`` with the reason why a model cannot be asked so."""
    if not dist.is_available():
        raise UserError("this PyTorch has no torch.distributed")
    backend = BACKENDS.get(device.type)
    if backend is None or not dist.is_backend_available(backend):
        raise UserError(f"this PyTorch has no way to share weights out on {device.type}")
    if next(energy.parameters(), None) is None:
        raise UserError("a closed form has no weights to share out")
    from energydiff.training.strategies import require_axes, require_pytorch

    require_pytorch()
    require_axes(energy)
    for part in energy.modules():
        class_name(type(part))  # by which the other processes find it
    try:
        pickle.dumps(energy)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(f"it cannot be handed to other processes: {error}") from error


def answers_in_parts(asked: Asked, states: States, learning: bool, device: torch.device) -> Answers:
    """As :func:`answers`, of processes that share weights and states between them.

    device: two processes on a ``cpu``; on ``cuda`` one on every GPU.

    Raises:
        RuntimeError: a process failed, with what it said last.
    """
    ranks = CPU_RANKS if device.type == "cpu" else torch.cuda.device_count()
    ranks = min(ranks, len(states.x))
    # A server that has imported all this forks processes at once, and has no threads to lose.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    multiprocessing.set_forkserver_preload([__name__, "energydiff.training.strategies"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save((asked.cpu(), states, learning), folder / "asked.pt")
        try:
            start_processes(_work, (ranks, device.type, folder), ranks, start_method=method)
        except ProcessException as error:
            raise RuntimeError(str(error).strip().rpartition("\n")[2]) from error
        parts = [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(ranks)]
    return Answers(
        {name: torch.cat([part.grad[name] for part in parts]) for name in parts[0].grad},
        torch.cat([part.slope for part in parts]),
        ranks * parts[0].training,
    )


def _work(rank: int, ranks: int, device_type: str, folder: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh

    from energydiff.training.strategies import share_weights

    warnings.simplefilter("ignore")  # of FSDP2, which are the training's
    if device_type == "cuda":
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks))
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group(BACKENDS[device_type], meeting, rank=rank, world_size=ranks)
    asked, states, learning = torch.load(folder / "asked.pt", weights_only=False)
    asked.to(device_type)
    share_weights(asked, init_device_mesh(device_type, (ranks,)))
    with full_precision(torch.device(device_type)):
        found = answers(asked, states.part(rank, ranks), learning)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()
