"""How samples that are measured are drawn, and what is looked at of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from energydiff.data import Normalization
from energydiff.evaluation.extractors import Extractor
from energydiff.random import sample_seed
from energydiff.sampling import (
    DPMSolver2M,
    Euler,
    GuardedEuler,
    GuardedHeun,
    Heun,
    Sampler,
    karras_sigmas,
)

DEGRADATION = "a blur by [1 6 1]/8 in both directions"
SamplerName = Literal["heun", "euler", "guarded_heun", "guarded_euler", "dpm_solver_2m"]
SAMPLERS: dict[str, type[Sampler]] = {
    "euler": Euler,
    "heun": Heun,
    "guarded_euler": GuardedEuler,
    "guarded_heun": GuardedHeun,
    "dpm_solver_2m": DPMSolver2M,
}


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn: sample i depends on (seed, i) and on these alone.

    Attributes:
        sampler: by name.
        steps: on Karras' grid from the model's σ_max to its σ_min, then a final denoising.
        seed: of the whole set.
        batch_size: samples at a time on each device.
        devices, accelerator: as in Lightning.
    """

    sampler: SamplerName
    steps: int
    seed: int = 0
    batch_size: int = 64
    devices: int = 1
    accelerator: str = "auto"

    def method(self, sigma_min: float, sigma_max: float) -> Sampler:
        """The sampler between a model's noise levels."""
        sigmas = karras_sigmas(self.steps, sigma_min, sigma_max)
        return SAMPLERS[self.sampler](sigmas, final_denoise=True)

    @property
    def device(self) -> torch.device:
        """Where one process does what is not shared among devices."""
        cuda = torch.cuda.is_available() and self.accelerator in ("auto", "gpu", "cuda")
        return torch.device("cuda" if cuda else "cpu")

    def seeds(self, numbers: Iterable[int]) -> list[int]:
        """Of samples by their numbers."""
        return [sample_seed(self.seed, number) for number in numbers]


class Quantised(nn.Module):
    """Samples in model coordinates to features of the uint8 images they are shown as.

    Those of a sample that is not finite are NaN: rounding would make an image of it.

    Args:
        degraded: also of the same images blurred, beside them.
    """

    def __init__(self, extractor: Extractor, normalization: Normalization, degraded: bool) -> None:
        super().__init__()
        self.extractor, self.normalization, self.degraded = extractor, normalization, degraded

    def forward(self, samples: Tensor) -> Tensor:
        """(B, C, H, W) to (B, f), or (B, 2f)."""
        images = self.normalization.to_uint8(samples)
        found: Tensor = self.extractor(images)
        if self.degraded:
            blurred = self.extractor(self.normalization.to_uint8(blur(samples)))
            found = torch.cat([found, blurred], 1)
        finite = samples.isfinite().flatten(1).all(1).to(found.device)
        return found.masked_fill(~finite[:, None], torch.nan)


def blur(images: Tensor) -> Tensor:
    """The known degradation: (B, C, H, W) smoothed by [1 6 1]/8 along height and width."""
    kernel = images.new_tensor([1.0, 6.0, 1.0]) / 8
    channels = images.shape[1]
    weight = (kernel[:, None] * kernel).expand(channels, 1, 3, 3)
    padded = nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    return nn.functional.conv2d(padded, weight, groups=channels)
