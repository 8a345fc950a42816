"""Lightning's predict loop around the drawing of samples: ranks, devices, and gathering."""

import math
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

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
from energydiff.ranks import from_first_rank, host_group, rank_count
from energydiff.sampling import Sampler, SampleResult, join_traces

Extract = Callable[[Tensor], Tensor]
Take = Callable[[Sequence[int], SampleResult], None]
Piece = tuple[Sequence[int], SampleResult]  # sample numbers, and what was drawn of them


def run_joined(
    denoiser: Denoiser,
    sampler: Sampler,
    numbers: range,
    how: Drawing,
    *,
    trace: bool,
    extract: Extract | None = None,
) -> SampleResult:
    """All samples of these numbers, or what ``extract`` makes of them, on every rank."""
    pieces: deque[Piece] = deque()

    def take(batch: Sequence[int], result: SampleResult) -> None:
        pieces.append((batch, result))

    run(denoiser, sampler, numbers, how, take, trace=trace, extract=extract)
    return _joined(_exchanged(pieces) if rank_count() > 1 else pieces, numbers)


def run(
    denoiser: Denoiser,
    sampler: Sampler,
    numbers: range,
    how: Drawing,
    take: Take,
    *,
    trace: bool,
    skip: Callable[[], Container[int]] = frozenset,
    extract: Extract | None = None,
) -> None:
    """Each batch of samples, or what ``extract`` makes of them, to ``take`` on its rank."""
    if not numbers:
        raise UserError(f"num_samples is {len(numbers)}; it must be at least 1.")
    for label in how.labels:
        if not 0 <= label < denoiser.num_classes:
            raise UserError(f"label is {label}, but this model has {denoiser.num_classes} classes.")
    if numbers.start % sampler.population or len(numbers) % sampler.population:
        raise UserError(
            f"{len(numbers)} samples from number {numbers.start} on are no whole populations of"
            f" {sampler.population}: draw a multiple of that."
        )
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
    module = _Module(denoiser, sampler, how, trace, extract, take)
    batches = _RankBatches(trainer, numbers, how, skip, module)
    loader = DataLoader(batches, batch_size=None, collate_fn=list)
    with progress("Sampling steps", batches.most(trainer.num_devices) * module.points) as tell:
        module.tell = tell
        trainer.predict(module, loader, return_predictions=False)


class _Module(pl.LightningModule):
    """The shell that the predict loop drives; hands on what it sampled, batch by batch."""

    def __init__(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        how: Drawing,
        trace: bool,
        extract: Extract | None,
        take: Take,
    ) -> None:
        super().__init__()
        self.denoiser, self.sampler, self.how = denoiser, sampler, how
        self.trace, self.extract, self.take = trace, extract, take
        self.points = len(sampler.sigmas) - 1 + sampler.final_denoise  # of each batch
        self.steps = 0
        self.tell: Callable[[int], None] = lambda _: None

    def predict_step(self, batch: list[int], batch_idx: int) -> None:
        result = self.how.draw(self.denoiser, self.sampler, batch, self.trace, self._on_step)
        kept = self.extract(result.samples) if self.extract else result.samples
        self.take(batch, replace(result, samples=kept.cpu()))

    def _on_step(self, *_: object) -> None:
        self.steps += 1
        self.tell(self.steps)


class _RankBatches(IterableDataset[Sequence[int]]):
    """This rank's sample numbers in batches; read when the loop starts, when ranks have met."""

    def __init__(
        self,
        trainer: pl.Trainer,
        numbers: range,
        how: Drawing,
        skip: Callable[[], Container[int]],
        module: _Module,
    ) -> None:
        self.trainer, self.numbers, self.how = trainer, numbers, how
        self.skip, self.module = skip, module

    def most(self, ranks: int) -> int:
        """How many batches a rank may have to draw."""
        return math.ceil(math.ceil(len(self.numbers) / self._size(ranks)) / ranks)

    def __iter__(self) -> Iterator[Sequence[int]]:
        ranks, size = self.trainer.world_size, self._size(self.trainer.world_size)
        known = from_first_rank(self.skip)
        together = self.module.sampler.population  # known only if all of them are
        every = [
            list(run)
            for start in range(0, len(self.numbers), size)
            for known_run, run in groupby(
                self.numbers[start : start + size],
                lambda number: all(n in known for n in _population(number, together)),
            )
            if not known_run
        ]
        mine = every[self.trainer.global_rank :: ranks]
        # What is known counts as done.
        self.module.steps = max(0, self.most(ranks) - len(mine)) * self.module.points
        return iter(mine)

    def _size(self, ranks: int) -> int:
        """Numbers to a batch: as many as was said, and of few samples a share for each rank; in
        whole populations."""
        population = self.module.sampler.population
        share = math.ceil(len(self.numbers) / population / ranks)
        return population * max(1, min(self.how.batch_size // population, share))


def _population(number: int, size: int) -> range:
    """All numbers of the population that one is of."""
    return range(start := number - number % size, start + size)


def _exchanged(mine: deque[Piece]) -> Iterator[Piece]:
    """The pieces of all ranks, one of each at a time; those of this rank are forgotten."""
    with host_group() as group:
        most = torch.tensor(len(mine))
        dist.all_reduce(most, dist.ReduceOp.MAX, group)
        for _ in range(int(most)):
            piece = mine.popleft() if mine else None
            found: list[Piece | None] = [None] * dist.get_world_size()
            dist.all_gather_object(found, piece, group)
            yield from filter(None, found)


def _joined(pieces: Iterable[Piece], numbers: range) -> SampleResult:
    """One result in the order of the numbers."""
    order: list[int] = []
    found: list[SampleResult] = []
    samples = torch.empty(0)
    for mine, result in pieces:
        if not found:
            samples = result.samples.new_empty(len(numbers), *result.samples.shape[1:])
        samples[[numbers.index(number) for number in mine]] = result.samples
        order += mine
        found.append(replace(result, samples=samples))  # the piece is forgotten
    if sorted(order) != list(numbers):
        raise RuntimeError("ranks returned overlapping or missing samples; this is a bug.")
    traces = [result.trace for result in found if result.trace is not None]
    return replace(
        found[0],
        trace=join_traces(traces).select(torch.tensor(order).argsort()) if traces else None,
        nfe=max(result.nfe for result in found),
        energy_evaluations=max(result.energy_evaluations for result in found),
    )
