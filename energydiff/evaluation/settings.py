"""How models are measured, as the command line says it."""

from dataclasses import dataclass
from pathlib import Path

from energydiff.drawing import Drawing
from energydiff.errors import UserError
from energydiff.sampling import Sampler, karras_sigmas, make_sampler
from energydiff.saving import SavedModel


@dataclass(frozen=True)
class Settings:
    """How many samples are drawn, how, and where what is found of them is kept.

    Args:
        num_samples: n.
        blocks: Disjoint blocks of seeds that n falls into; intervals are taken over them.
        weights: Local file with the weights of a published extractor.
        sampler: A name from docs/sample.md, or the import path of a class of your own.
        steps: Steps down Karras' grid, before a final denoising.
        seed: Of the whole set; sample i depends on (seed, i) alone.
        batch_size: Samples at a time on each device.
        devices: How many devices share the work.
        accelerator: As in Lightning: auto, cpu, gpu, mps.
        store: Folder where features and results are kept; a run that was cut off goes on there.
    """

    num_samples: int = 10_000
    blocks: int = 5
    weights: Path | None = None
    sampler: str = "heun"
    steps: int = 18
    seed: int = 0
    batch_size: int = 64
    devices: int = 1
    accelerator: str = "auto"
    store: Path = Path("runs/evaluation")

    def __post_init__(self) -> None:
        n, blocks = self.num_samples, self.blocks
        if blocks < 2 or n < 2 * blocks or n % blocks:
            raise UserError(
                f"-n {n} samples do not fall into --blocks {blocks} equal blocks:"
                " give two blocks or more, of two samples or more, that divide n."
            )
        named_sampler(self.sampler, 1, 1.0, 2.0)  # one that there is not is refused before any work

    @property
    def block_size(self) -> int:
        """Samples in a block."""
        return self.num_samples // self.blocks

    @property
    def drawing(self) -> Drawing:
        """Seed, batches and devices."""
        return Drawing(self.seed, (), self.batch_size, self.devices, self.accelerator)

    def sampler_of(self, model: SavedModel) -> Sampler:
        """The sampler between a model's noise levels."""
        return named_sampler(self.sampler, self.steps, *model.denoiser.require_noise())


def named_sampler(name: str, steps: int, sigma_min: float, sigma_max: float) -> Sampler:
    """By name, on Karras' grid from σ_max to σ_min, then a final denoising."""
    return make_sampler(name, karras_sigmas(steps, sigma_min, sigma_max))
