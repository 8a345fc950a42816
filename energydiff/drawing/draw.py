"""Many samples, on one device or several, through Lightning's predict loop."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader

from energydiff.console import quiet_lightning
from energydiff.energies import Denoiser
from energydiff.errors import UserError
from energydiff.progress import progress
from energydiff.random import sample_seed
from energydiff.sampling import Sampler, SampleResult, join_traces

Batch = list[int]
Extract = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SampleRequest:
    """Which samples: number i depends on (seed, i) alone.

    Attributes:
        count: how many.
        seed: of the whole set, 0 to 2³¹ − 1.
        label: one class index for all, or ``None``.
        batch_size: samples at a time on each device.
        trace: record the Lyapunov function.
        first: number of the first of them.
    """

    count: int
    seed: int = 0
    label: int | None = None
    batch_size: int = 64
    trace: bool = True
    first: int = 0

    @property
    def numbers(self) -> range:
        """Of the samples."""
        return range(self.first, self.first + self.count)

    def __post_init__(self) -> None:
        for name, value in (("num_samples", self.count), ("batch_size", self.batch_size)):
            if value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1.")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed is {self.seed}; it must lie between 0 and 2^31 - 1.")


class SamplingModule(pl.LightningModule):
    """The shell that Lightning's predict loop drives; keeps what it sampled, batch by batch."""

    def __init__(
        self, denoiser: Denoiser, sampler: Sampler, request: SampleRequest, extract: Extract | None
    ) -> None:
        super().__init__()
        self.denoiser, self.sampler, self.request = denoiser, sampler, request
        self.extract = extract
        self.indices: list[int] = []
        self.results: list[SampleResult] = []
        self.on_point: Callable[[], None] = lambda: None

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        label = self.request.label
        result = self.sampler(
            self.denoiser,
            seeds=[sample_seed(self.request.seed, index) for index in batch],
            label=None if label is None else torch.full((len(batch),), label, device=self.device),
            trace=self.request.trace,
            on_step=lambda *_: self.on_point(),
        )
        self.indices += batch
        kept = self.extract(result.samples) if self.extract else result.samples
        self.results.append(replace(result, samples=kept.cpu()))


def draw_samples(
    denoiser: Denoiser,
    sampler: Sampler,
    request: SampleRequest,
    *,
    devices: int | str = "auto",
    accelerator: str = "auto",
) -> SampleResult | None:
    """The samples in the order of their numbers; ``None`` on ranks other than the first.

    Ranks share the numbers without padding, so no sample is drawn twice; that every one came
    back exactly once is checked.

    Raises:
        UserError: a label the model does not know.
    """
    result = _draw(denoiser, sampler, request, None, devices, accelerator)
    return result if is_first_rank() else None


def draw_features(
    denoiser: Denoiser,
    sampler: Sampler,
    request: SampleRequest,
    extract: Extract,
    *,
    devices: int | str = "auto",
    accelerator: str = "auto",
) -> Tensor:
    """What ``extract`` makes of the samples, in the order of their numbers, on every rank.

    Samples are forgotten batch by batch, so any number of them can be measured.

    Args:
        extract: a batch of samples (B, \\*shape) on its device to (B, …). A module is moved there.
    """
    return _draw(denoiser, sampler, request, extract, devices, accelerator).samples


def is_first_rank() -> bool:
    """Whether this process is the one that writes and prints."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]


def _draw(
    denoiser: Denoiser,
    sampler: Sampler,
    request: SampleRequest,
    extract: Extract | None,
    devices: int | str,
    accelerator: str,
) -> SampleResult:
    if request.label is not None and not 0 <= request.label < denoiser.num_classes:
        raise UserError(
            f"label is {request.label}, but this model has {denoiser.num_classes} classes."
        )
    quiet_lightning()
    try:
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=devices,
            inference_mode=False,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=[_Progress()],
        )
    except MisconfigurationException as error:
        raise UserError(f"devices or accelerator: {error}") from error
    module = SamplingModule(denoiser, sampler, request, extract)
    loader = DataLoader(_RankBatches(trainer, request), batch_size=None, collate_fn=list)
    trainer.predict(module, loader, return_predictions=False)
    return _gather(trainer, module)


class _RankBatches(torch.utils.data.IterableDataset[Batch]):
    """This rank's sample indices in batches; read when the loop starts, when ranks are known."""

    def __init__(self, trainer: pl.Trainer, request: SampleRequest) -> None:
        self.trainer, self.request = trainer, request

    def __iter__(self) -> Iterator[Batch]:
        mine = self.request.numbers[self.trainer.global_rank :: self.trainer.world_size]
        size = self.request.batch_size
        return (list(mine[i : i + size]) for i in range(0, len(mine), size))


class _Progress(pl.Callback):
    """A bar over all steps of all batches of the first rank."""

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, SamplingModule)
        if not trainer.is_global_zero:
            return
        request, sampler = pl_module.request, pl_module.sampler
        batches = math.ceil(math.ceil(request.count / trainer.world_size) / request.batch_size)
        points = len(sampler.sigmas) - 1 + sampler.final_denoise
        self._bar = progress("Sampling steps", batches * points)
        tell, done = self._bar.__enter__(), 0

        def on_point() -> None:
            nonlocal done
            done += 1
            tell(done)

        pl_module.on_point = on_point

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self._bar.__exit__(None, None, None)


def _gather(trainer: pl.Trainer, module: SamplingModule) -> SampleResult:
    """All ranks' results in the order of their indices."""
    part = (module.indices, module.results)
    parts = [part] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(parts, part)
    order = torch.tensor([index for indices, _ in parts for index in indices])
    if sorted(order.tolist()) != list(module.request.numbers):
        raise RuntimeError("ranks returned overlapping or missing samples; this is a bug.")
    order = order.argsort()
    found = [result for _, results in parts for result in results]
    traces = [result.trace for result in found if result.trace is not None]
    return replace(
        found[0],
        samples=torch.cat([result.samples for result in found])[order],
        trace=join_traces(traces).select(order) if traces else None,
        nfe=max(result.nfe for result in found),
        energy_evaluations=max(result.energy_evaluations for result in found),
    )
