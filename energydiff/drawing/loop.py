"""Lightning's predict loop around the drawing of samples: ranks, devices, and gathering."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from energydiff.console import quiet_lightning
from energydiff.drawing.draw import Drawing
from energydiff.energies import Denoiser
from energydiff.errors import UserError
from energydiff.progress import progress
from energydiff.ranks import host_group
from energydiff.sampling import Sampler, SampleResult, join_traces

Extract = Callable[[Tensor], Tensor]
Piece = tuple[Sequence[int], SampleResult]  # sample numbers, and what was drawn of them


def run(
    denoiser: Denoiser,
    sampler: Sampler,
    numbers: range,
    how: Drawing,
    *,
    trace: bool,
    everywhere: bool,
    extract: Extract | None = None,
) -> SampleResult | None:
    """All samples of these numbers, or what ``extract`` makes of them, on the first rank; on the
    others too if wanted ``everywhere``, or else ``None``."""
    if not numbers:
        raise UserError(f"num_samples is {len(numbers)}; it must be at least 1.")
    for label in how.labels:
        if not 0 <= label < denoiser.num_classes:
            raise UserError(f"label is {label}, but this model has {denoiser.num_classes} classes.")
    quiet_lightning()
    try:
        trainer = pl.Trainer(
            accelerator=how.accelerator,
            devices=how.devices,
            inference_mode=False,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except MisconfigurationException as error:
        raise UserError(f"devices or accelerator: {error}") from error
    module = _Module(denoiser, sampler, how, trace, extract)
    loader = DataLoader(_RankBatches(trainer, numbers, how), batch_size=None, collate_fn=list)
    batches = math.ceil(math.ceil(len(numbers) / trainer.num_devices) / how.batch_size)
    points = len(sampler.sigmas) - 1 + sampler.final_denoise
    with progress("Sampling steps", batches * points) as tell:
        module.tell = tell
        trainer.predict(module, loader, return_predictions=False)
    shared = trainer.world_size > 1
    return _joined(_exchanged(module.pieces, everywhere) if shared else module.pieces, numbers)


class _Module(pl.LightningModule):
    """The shell that the predict loop drives; keeps what it sampled, batch by batch."""

    def __init__(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        how: Drawing,
        trace: bool,
        extract: Extract | None,
    ) -> None:
        super().__init__()
        self.denoiser, self.sampler, self.how = denoiser, sampler, how
        self.trace, self.extract = trace, extract
        self.pieces: deque[Piece] = deque()
        self.steps = 0
        self.tell: Callable[[int], None] = lambda _: None

    def predict_step(self, batch: list[int], batch_idx: int) -> None:
        result = self.how.draw(self.denoiser, self.sampler, batch, self.trace, self._on_step)
        kept = self.extract(result.samples) if self.extract else result.samples
        self.pieces.append((batch, replace(result, samples=kept.cpu())))

    def _on_step(self, *_: object) -> None:
        self.steps += 1
        self.tell(self.steps)


class _RankBatches(IterableDataset[Sequence[int]]):
    """This rank's sample numbers in batches; read when the loop starts, when ranks are known."""

    def __init__(self, trainer: pl.Trainer, numbers: range, how: Drawing) -> None:
        self.trainer, self.numbers, self.how = trainer, numbers, how

    def __iter__(self) -> Iterator[Sequence[int]]:
        mine = self.numbers[self.trainer.global_rank :: self.trainer.world_size]
        return self.how.batches(mine)


def _exchanged(mine: deque[Piece], everywhere: bool) -> Iterator[Piece]:
    """The pieces of all ranks, one of each at a time, on the first rank or ``everywhere``; those
    of this rank are forgotten."""
    with host_group() as group:
        most = torch.tensor(len(mine))
        dist.all_reduce(most, dist.ReduceOp.MAX, group)
        for _ in range(int(most)):
            piece = mine.popleft() if mine else None
            found: list[Piece | None] = [None] * dist.get_world_size()
            if everywhere:
                dist.all_gather_object(found, piece, group)
            else:
                dist.gather_object(piece, found if dist.get_rank() == 0 else None, 0, group)
            yield from filter(None, found)


def _joined(pieces: Iterable[Piece], numbers: range) -> SampleResult | None:
    """One result in the order of the numbers; ``None`` of no pieces."""
    order: list[int] = []
    found: list[SampleResult] = []
    samples = torch.empty(0)
    for mine, result in pieces:
        if not found:
            samples = result.samples.new_empty(len(numbers), *result.samples.shape[1:])
        samples[[numbers.index(number) for number in mine]] = result.samples
        order += mine
        found.append(replace(result, samples=samples))  # the piece is forgotten
    if not found:
        return None
    if sorted(order) != list(numbers):
        raise RuntimeError("ranks returned overlapping or missing samples; this is a bug.")
    traces = [result.trace for result in found if result.trace is not None]
    return replace(
        found[0],
        trace=join_traces(traces).select(torch.tensor(order).argsort()) if traces else None,
        nfe=max(result.nfe for result in found),
        energy_evaluations=max(result.energy_evaluations for result in found),
    )
