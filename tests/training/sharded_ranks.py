"""The gradient of two ranks with the weights shared out: ``python sharded_ranks.py FOLDER`` writes
for every case what it is, whole, and how much of it a rank held."""

import sys
from pathlib import Path
from typing import Any

import energydiff  # noqa: F401

# isort: split
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from energydiff.data import Normalization
from energydiff.diffusion import DenoisingScoreMatching, DualScoreMatching
from energydiff.potentials import MLP, EnergyTransformer, EnergyUNet, UNet
from energydiff.training import DiffusionModule
from energydiff.training.strategies import share_weights, whole

SHAPE, BATCH, RANKS = (1, 8, 8), 8, 2
TRUNK = ("convolution", "feedforward", "attention")
CASES: dict[str, Any] = {
    "mlp, dual": (lambda: MLP(SHAPE, width=7, depth=1), "inner_product", DualScoreMatching),
    "unet": (
        lambda: UNet(SHAPE, channels=4, multipliers=(1, 2), blocks=1, num_classes=2),
        "sum",
        DenoisingScoreMatching,
    ),
    "energy unet": (
        lambda: EnergyUNet(SHAPE, 8, (1, 2), attention_resolutions=(4,), num_classes=2),
        "scalar",
        DenoisingScoreMatching,
    ),
    "energy unet, dual": (
        lambda: EnergyUNet(SHAPE, 8, (1, 2), periods=(0.25,)),
        "scalar",
        DualScoreMatching,
    ),
    "energy transformer, dual": (
        lambda: EnergyTransformer(SHAPE, width=16, trunk=TRUNK),
        "scalar",
        DualScoreMatching,
    ),
}


class Bare(DiffusionModule):
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return torch.stack([*self.loss_parts(batch).values()]).sum(0).mean()


def module_of(case: str) -> Bare:
    """In float64, none of its weights zero."""
    network, parametrization, objective = CASES[case]
    torch.manual_seed(0)
    module = Bare(network(), 0.6, Normalization(0, 16), parametrization, objective())
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return module.double().train()


def batch_of(ranks: int, rank: int, number: int = 0) -> dict[str, Tensor]:
    """This rank's part of a batch."""
    draw = torch.Generator().manual_seed(number)
    batch = {
        "raw": torch.rand(BATCH, *SHAPE, generator=draw, dtype=torch.float64) * 16,
        "noise": torch.randn(BATCH, *SHAPE, generator=draw, dtype=torch.float64),
        "uniform": torch.rand(BATCH, 2, generator=draw, dtype=torch.float64),
        "label": torch.randint(2, (BATCH,), generator=draw),
    }
    return {name: values[rank::ranks] for name, values in batch.items()}


def gradient(module: Bare, ranks: int = 1, rank: int = 0) -> dict[str, Any]:
    """Of the mean loss of two batches, accumulated, by the parameter's name."""
    for number in range(2):
        module.training_step(batch_of(ranks, rank, number), number).div(2).backward()
    return {name: p.grad for name, p in module.named_parameters()}


def work(rank: int, folder: Path) -> None:
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", meeting, rank=rank, world_size=RANKS)
    mesh = init_device_mesh("cpu", (RANKS,))
    found = {}
    for case in CASES:
        module = module_of(case)
        share_weights(module, mesh)
        parts = sum(isinstance(m, FSDPModule) for m in module.modules()) - 1
        found[case] = {"gradient": whole(gradient(module, RANKS, rank)), "parts": parts}
        held = sum(p.to_local().numel() for p in module.parameters() if isinstance(p, DTensor))
        found[case]["held"] = held / sum(p.numel() for p in module.parameters())
    if rank == 0:
        torch.save(found, folder / "found.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.start_processes(work, (Path(sys.argv[1]),), RANKS, start_method="fork")
