"""Clean data with the noise that an objective looks at them under."""

import math
from dataclasses import dataclass

from torch import Tensor

from energydiff.energies.base import per_sample


@dataclass(frozen=True)
class NoisyBatch:
    """What an objective is given.

    Attributes:
        x0: clean data in model coordinates, (B, \\*shape).
        sigma: noise levels, (B,).
        noise: ε ~ N(0, I), like x0.
        sigma_data: σ_d.
        label: (B,), −1 for unknown; only for a model with classes.
        mean: E[x0 | x], like x0, where a teacher or all of the data tell it.
    """

    x0: Tensor
    sigma: Tensor
    noise: Tensor
    sigma_data: float
    label: Tensor | None = None
    mean: Tensor | None = None

    @property
    def x(self) -> Tensor:
        """x0 + σε, like x0."""
        return self.x0 + per_sample(self.sigma, self.x0) * self.noise

    @property
    def target(self) -> Tensor:
        """What a denoiser is regressed on, like x0: the data, or their posterior mean."""
        return self.x0 if self.mean is None else self.mean

    @property
    def time_target(self) -> Tensor:
        """d − ‖ε‖², (B,): at fixed x its posterior mean is ∂E/∂log σ (Guth et al. 2025)."""
        return math.prod(self.noise.shape[1:]) - self.noise.square().flatten(1).sum(1)
