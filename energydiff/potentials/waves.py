"""What a network is shown of values that lie on a grid, as far as noise leaves it to be seen.

A convolution of u cannot tell a value from its neighbour on a fine grid; sines and cosines of that
period can (Kingma et al. 2021, appendix C). At x = x0 + σε a wave is still worth exp(−½ω²σ²) of
itself: of a phase that may be anything the best linear estimate of cos ωx0 is

    exp(−½ω²σ²) cos ωx

so at noise that hides the grid nothing is left of it, where waves of x itself would be noise.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from energydiff.errors import UserError


class Waves(nn.Module):
    """u with the damped cosines and sines of x = √(σ²+σ_d²) u behind it, as further channels.

    Args:
        periods: of the waves, in units of x.
        sigma_data: σ_d.

    Attributes:
        times: channels for each of u.
    """

    frequencies: Tensor

    def __init__(self, periods: Sequence[float], sigma_data: float) -> None:
        super().__init__()
        if not all(period > 0 for period in periods):
            raise UserError(f"periods are {list(periods)}; each must be positive.")
        frequencies = 2 * math.pi / torch.tensor(periods)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.sigma_data, self.times = sigma_data, 1 + 2 * len(periods)

    def noise(self, c: Tensor) -> Tensor:
        """√(σ²+σ_d²), and what is left of each wave, (B, 1 + K)."""
        sigma = torch.exp(4 * c)[:, None]
        scale = (sigma.square() + self.sigma_data**2).sqrt()
        return torch.cat([scale, torch.exp(-0.5 * (self.frequencies * sigma).square())], 1)

    def forward(self, u: Tensor, noise: Tensor) -> Tensor:
        """(B, C (1 + 2K), H, W)."""
        cosines, sines = self._waves(u, noise)
        return torch.cat(
            [u, (cosines * _left(noise)).flatten(1, 2), (sines * _left(noise)).flatten(1, 2)], 1
        )

    def pullback(self, grad: Tensor, u: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The cotangents of u and of ``noise``."""
        cosines, sines = self._waves(u, noise)
        to_u, to_waves = grad[:, : u.shape[1]], grad[:, u.shape[1] :]
        to_cosines, to_sines = (
            part.unflatten(1, (-1, u.shape[1])) for part in to_waves.chunk(2, 1)
        )
        along = (to_sines * cosines - to_cosines * sines) * _left(noise)
        to_x = (along * self.frequencies[:, None, None, None]).sum(1)
        to_left = (to_cosines * cosines + to_sines * sines).sum((2, 3, 4))
        to_scale = (to_x * u).sum((1, 2, 3))[:, None]
        return to_u + _scale(noise) * to_x, torch.cat([to_scale, to_left], 1)

    def _waves(self, u: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Undamped, each (B, K, C, H, W)."""
        phase = self.frequencies[:, None, None, None] * (_scale(noise) * u)[:, None]
        return phase.cos(), phase.sin()


def _scale(noise: Tensor) -> Tensor:
    return noise[:, 0, None, None, None]


def _left(noise: Tensor) -> Tensor:
    return noise[:, 1:, None, None, None]
