"""What each of two processes finds: ``python two_ranks.py FOLDER`` writes rank0.pt and rank1.pt."""

import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import energydiff  # noqa: F401

# isort: split
import torch
import torch.distributed as dist

from energydiff.data import Digits
from energydiff.diffusion import MonotoneDenoiser
from energydiff.drawing import Drawing, draw_batches, draw_features, draw_samples
from energydiff.energies import GaussianMixture
from energydiff.errors import UserError
from energydiff.evaluation import EvaluationData, classifier
from energydiff.potentials import MLP
from energydiff.ranks import from_first_rank
from energydiff.sampling import Euler, karras_sigmas
from energydiff.training import DiffusionData, DiffusionModule, QualityMonitor, quality

ENERGY = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 0.1)
EULER = Euler(karras_sigmas(4, 0.02, 10.0), final_denoise=True)
NUMBERS = range(4, 11)
PATIENCE, WORK = 1.0, 3.0  # seconds


def penalised(ranks: int, rank: int) -> MonotoneDenoiser:
    """After three steps on this rank's part of a batch."""
    term = MonotoneDenoiser()
    term.prepare(ENERGY)
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
    sigma = torch.logspace(-1, 1, 8)
    for _ in range(3):
        term(ENERGY, x[rank::ranks], sigma[rank::ranks], None)
    return term


def opened_monitor() -> QualityMonitor:
    """Before the first step, where reading the reference takes the first rank long."""
    classifier.SHOWN_IMAGES = 2_000
    open_measurable: Any = quality.open_measurable

    def slowly(*arguments: Any) -> Any:
        time.sleep(WORK if dist.get_rank() == 0 else 0)
        return open_measurable(*arguments)

    quality.open_measurable = slowly
    data = DiffusionData(batch_size=8)
    network = MLP(data.shape, width=8, depth=1)
    module = DiffusionModule(network, data.sigma_data, data.normalization)
    monitor = QualityMonitor(
        samples=24, data=EvaluationData(Digits(labels=True), small_reference=True)
    )
    trainer: Any = SimpleNamespace(
        default_root_dir=".",
        is_global_zero=dist.get_rank() == 0,
        strategy=SimpleNamespace(barrier=dist.barrier),
    )
    monitor.on_train_start(trainer, module)
    return monitor


def refused() -> None:
    raise UserError("the first rank does not like it.")


def main(folder: Path) -> None:
    how = Drawing(seed=3, batch_size=2, devices=2, accelerator="cpu")
    # Lightning starts the second process here.
    mine: dict[int, Any] = {}
    draw_batches(
        *(ENERGY, EULER, NUMBERS, how),
        lambda batch, drawn: mine.update(zip(batch, drawn.samples, strict=True)),
        skip=lambda: {5, 9} if dist.get_rank() == 0 else set(),
    )
    found: dict[str, Any] = {"mine": mine}
    found["all"] = draw_samples(ENERGY, EULER, NUMBERS, how)
    found["features"] = draw_features(ENERGY, EULER, NUMBERS, how, lambda x: 2 * x)
    rank = dist.get_rank()
    found["penalty"] = penalised(dist.get_world_size(), rank).state_dict()
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=PATIENCE), dist.group.WORLD)
    monitor = opened_monitor()
    found["extractor"] = monitor._extractor and monitor._extractor.digest
    found["reference"] = monitor._reference and monitor._reference.count
    try:
        from_first_rank(refused)
    except UserError as error:
        found["refusal"] = str(error)
    torch.save(found, folder / f"rank{rank}.pt")
    time.sleep(WORK if rank == 0 else 0)
    try:
        dist.barrier()
        (folder / f"patient{rank}").touch()
    except RuntimeError:
        pass  # the group of training does not wait so long


if __name__ == "__main__":
    main(Path(sys.argv[1]))
