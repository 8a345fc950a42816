"""What a stranger brings, outside the package: one of each kind, as small as it can be."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from energydiff.diffusion import DenoisingScoreMatching, NoiseLevels, NoisyBatch
from energydiff.energies import Denoiser, Energy
from energydiff.energies.base import Sigma, sigma_vector
from energydiff.evaluation import Extractor
from energydiff.potentials import Backbone
from energydiff.sampling import Sampler
from energydiff.sampling.run import Point, Run


class Field(Backbone):
    """Two layers with c among the inputs."""

    def __init__(self, shape: tuple[int, ...], width: int = 16, num_classes: int = 0) -> None:
        super().__init__()
        self.shape, self.num_classes = tuple(shape), num_classes
        size = math.prod(shape)
        self.layers = nn.Sequential(nn.Linear(size + 1, width), nn.SiLU(), nn.Linear(width, size))

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return self.layers(torch.cat([u.flatten(1), c[:, None]], 1)).view_as(u)


class Stripes(Dataset):
    """Grey 4×4 images of one stripe each."""

    classes = ("rows", "columns")

    def __init__(self, count: int = 120) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        if not 0 <= i < self.count:
            raise IndexError(i)
        image = torch.zeros(1, 4, 4, dtype=torch.uint8)
        image[0, i // 2 % 4] = 155 + i % 100
        return (image if i % 2 == 0 else image.mT.contiguous()), i % 2


class Half(Sampler):
    """Half of Euler's step."""

    name = "half"

    def step(self, run: Run, here: Point, sigma: float) -> Tensor:
        return here.x - 0.5 * (1 - sigma / here.sigma) * here.residual


class Bowl(Energy):
    """E of N(0, (1 + σ²) I), up to its constant."""

    def __init__(self, shape: tuple[int, ...], depth: float = 1.0) -> None:
        super().__init__()
        self.shape, self.depth = tuple(shape), depth

    def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        level = sigma_vector(sigma, x)
        return self.depth * x.square().flatten(1).sum(1) / (2 * (1 + level.square()))


class Pixels(Extractor):
    """The pixels themselves, made small."""

    def __init__(self) -> None:
        super().__init__("pixels", "0" * 64, "averaged over 2x2 pixels", dim=4)
        self.register_buffer("scale", torch.tensor(1 / 255))

    def extract(self, images: Tensor) -> Tensor:
        return (
            F.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), 2).flatten(1) * self.scale
        )


@dataclass(frozen=True)
class Doubled(DenoisingScoreMatching):
    """Twice the denoising loss."""

    def __call__(self, denoiser: Denoiser, batch: NoisyBatch) -> dict[str, Tensor]:
        return {name: 2 * part for name, part in super().__call__(denoiser, batch).items()}


@dataclass(frozen=True)
class Narrow(NoiseLevels):
    """σ between 0.5 and 1.5."""

    def quantile(self, u: Tensor) -> Tensor:
        return 0.5 + u
