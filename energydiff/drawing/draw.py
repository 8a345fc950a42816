"""Many samples, on one device or several: which they are, and the ways to ask for them."""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.energies import Denoiser
from energydiff.errors import UserError
from energydiff.random import sample_seed
from energydiff.ranks import wait_for_all
from energydiff.sampling import Sampler, SampleResult


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn: number i depends on (seed, i) alone, wherever and beside whatever.

    Of a sampler of populations, one depends on all the numbers of its population: P consecutive
    ones from a multiple of P on.

    Attributes:
        seed: of the whole set, 0 to 2³¹ − 1.
        labels: class indices; samples, or populations of them, take them in turn, by their number.
            None for a model's whole distribution.
        batch_size: samples at a time on each device; whole populations, and one at the least.
        devices, accelerator: as in Lightning.
    """

    seed: int = 0
    labels: tuple[int, ...] = ()
    batch_size: int = 64
    devices: int | str = 1
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size}; it must be at least 1.")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed is {self.seed}; it must lie between 0 and 2^31 - 1.")

    @property
    def device(self) -> torch.device:
        """Where one process does what is not shared among devices."""
        cuda = torch.cuda.is_available() and self.accelerator in ("auto", "gpu", "cuda")
        return torch.device("cuda" if cuda else "cpu")

    def batches(self, numbers: Sequence[int]) -> Iterator[Sequence[int]]:
        """The numbers, a batch at a time."""
        return (numbers[i : i + self.batch_size] for i in range(0, len(numbers), self.batch_size))

    def draw(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        numbers: Sequence[int],
        trace: bool = True,
        on_step: Callable[..., None] | None = None,
    ) -> SampleResult:
        """One batch, in this process and on the model's device."""
        label = None
        if self.labels:
            device = next(iter(denoiser.state_dict().values())).device
            turns = [number // sampler.population for number in numbers]
            own = [self.labels[turn % len(self.labels)] for turn in turns]
            label = torch.tensor(own, device=device)
        seeds = [sample_seed(self.seed, number) for number in numbers]
        return sampler(denoiser, seeds=seeds, label=label, trace=trace, on_step=on_step)


def draw_samples(
    denoiser: Denoiser,
    sampler: Sampler,
    numbers: range,
    how: Drawing,
    *,
    trace: bool = True,
) -> SampleResult:
    """The samples of these numbers, in their order and on every rank, on the CPU.

    Ranks share the numbers without padding, so no sample is drawn twice; that every one came
    back exactly once is checked.

    Args:
        trace: record the Lyapunov function, if the model has one.

    Raises:
        UserError: no number, a label the model does not know, or a device that is not there.
    """
    from energydiff.drawing.loop import run_joined  # Lightning takes seconds to import

    return run_joined(denoiser, sampler, numbers, how, trace=trace)


def draw_batches(
    denoiser: Denoiser,
    sampler: Sampler,
    numbers: range,
    how: Drawing,
    take: Callable[[Sequence[int], SampleResult], None],
    *,
    skip: Callable[[], Container[int]] = frozenset,
    trace: bool = True,
) -> None:
    """Hands each batch to ``take`` on the rank that drew it, and forgets it; ends on all ranks at
    once.

    A batch holds consecutive numbers. Which it holds depends on how many samples, ranks and
    numbers to a batch there are, and not on what is skipped, but that a batch in which some are is
    drawn in parts: what is drawn in two runs is what one run would have drawn, to the bit.

    Args:
        take: its numbers, and what was drawn, on the CPU.
        skip: called once, on the first rank when it has met the others; which numbers not to draw.

    Raises:
        UserError: as :func:`draw_samples`, or by ``skip``.
    """
    from energydiff.drawing.loop import run  # Lightning takes seconds to import

    run(denoiser, sampler, numbers, how, take, skip=skip, trace=trace)
    wait_for_all()


def draw_features(
    denoiser: Denoiser,
    sampler: Sampler,
    numbers: range,
    how: Drawing,
    extract: Callable[[Tensor], Tensor],
) -> Tensor:
    """What ``extract`` makes of the samples, in the order of their numbers, on every rank.

    Samples are forgotten batch by batch, so any number of them can be measured.

    Args:
        extract: a batch of samples (B, \\*shape) on its device to (B, …). A module is moved there.
    """
    from energydiff.drawing.loop import run_joined  # Lightning takes seconds to import

    drawn = run_joined(denoiser, sampler, numbers, how, trace=False, extract=extract)
    return drawn.samples
