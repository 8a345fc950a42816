"""What is kept of a step that was not finite, and how to take it once more.

``RUN/nonfinite/000064000/`` (the images seen before it) holds report.json, the batch of every rank
as training had it (``rank0.pt``, …) and ``weights.ckpt``, a checkpoint of the step before.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from energydiff.errors import UserError
from energydiff.files import write_json
from energydiff.saving import write_checkpoint
from energydiff.training.stream import Item
from energydiff.training.stream_module import StreamModule

FOLDER = Path("nonfinite")
WEIGHTS, REPORT = "weights.ckpt", "report.json"


@dataclass(frozen=True)
class Share:
    """What one rank met: all its images of the step, in their order.

    Attributes:
        counts: the number of each in the stream.
        indices, names: which sample of the data it was.
        levels: its σ, or what else its loss was taken at.
        losses: not finite where ``None``.
        norm: of the gradient over all ranks, the same for each.
    """

    rank: int
    counts: list[int]
    indices: list[int]
    names: list[str]
    levels: list[float]
    losses: list[float]
    norm: float

    @property
    def culprits(self) -> list[int]:
        """The samples whose loss was not finite."""
        finite = torch.tensor(self.losses).isfinite().tolist()
        return [index for index, good in zip(self.indices, finite, strict=True) if not good]


def share_of(trainer: pl.Trainer, batches: Sequence[Item], losses: Tensor, norm: Tensor) -> Share:
    """This rank's."""
    module, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(module, StreamModule)
    counts = [count for batch in batches for count in batch["count"].tolist()]
    indices = [data.stream.index(count) for count in counts]
    return Share(
        trainer.global_rank,
        counts,
        indices,
        [data.train_source.names[index] for index in indices],
        [level for batch in batches for level in module.levels(batch).tolist()],
        losses.tolist(),
        float(norm),
    )


def keep(
    trainer: pl.Trainer, step: int, shares: Sequence[Share], batches: Sequence[Item]
) -> Path | None:
    """Writes the folder, on every rank its part; ``None`` where nothing can be written."""
    module = trainer.lightning_module
    assert isinstance(module, StreamModule)
    folder = Path(trainer.default_root_dir) / FOLDER / f"{module.images_after(step):09d}"
    report = {
        "step": step,
        "device": trainer.strategy.root_device.type,
        "precision": trainer.precision,
        "ranks": [asdict(share) for share in shares],
    }
    kept: Path | None = folder
    try:
        trainer.save_checkpoint(folder / WEIGHTS, weights_only=False)  # in which ranks meet
        write_checkpoint({"batches": list(batches)}, folder / f"rank{trainer.global_rank}.pt")
        if trainer.is_global_zero:
            write_json(folder / REPORT, report)
    except UserError:
        kept = None
    trainer.strategy.barrier()  # the first to leave ends the others
    return kept


def read(folder: Path) -> tuple[dict[str, Any], list[list[Item]]]:
    """The report, and the batches of every rank; ``UserError`` where there are none."""
    try:
        report = json.loads((folder / REPORT).read_text())
        files = [folder / f"rank{share['rank']}.pt" for share in report["ranks"]]
        kept = [torch.load(file, map_location="cpu", weights_only=True) for file in files]
        return report, [content["batches"] for content in kept]
    except (OSError, ValueError, LookupError, RuntimeError, UnpicklingError) as error:
        raise UserError(
            f"{folder} does not hold a step that was not finite ({error}): give a folder that fit"
            f" wrote into {FOLDER}/ of its run."
        ) from error


@dataclass(frozen=True)
class Replayed:
    """The same step again.

    Attributes:
        losses: (images,).
        norm: of the gradient.
        first: where a value was not finite first, in words.
        parameters: those whose gradient is not finite, by name.
    """

    losses: Tensor
    norm: float
    first: str | None
    parameters: list[str]


def replay(trainer: pl.Trainer, module: StreamModule, batches: Sequence[Item]) -> Replayed:
    """Losses and gradient of a step of these batches, under the trainer's device and precision."""
    device = trainer.strategy.root_device
    module.to(device).train()
    bad: list[str] = []
    hooks = [_watch(part, name, bad) for name, part in module.named_modules() if name]
    losses = []
    for batch in batches:
        there = {name: value.to(device) for name, value in batch.items()}
        if not there["raw"].isfinite().all():
            bad.append("the images")
        with trainer.precision_plugin.forward_context():
            parts = module.loss_parts(there)
        loss = torch.stack(list(parts.values())).sum(0)
        (loss.mean() / len(batches)).backward()
        losses.append(loss.detach())
    for hook in hooks:
        hook.remove()
    gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    return Replayed(
        torch.cat(losses).cpu(),
        float(torch.nn.utils.get_total_norm(gradients.values())),
        bad[0] if bad else None,
        [name for name, gradient in gradients.items() if not gradient.isfinite().all()],
    )


def _watch(module: nn.Module, name: str, bad: list[str]) -> RemovableHandle:
    def look(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not output.isfinite().all():
            bad.append(f"the output of {name}")

    return module.register_forward_hook(look)
