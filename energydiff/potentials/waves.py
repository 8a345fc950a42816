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

    Attributes:
        channels: for each of u.
    """

    frequencies: Tensor

    def __init__(self, periods: Sequence[float]) -> None:
        super().__init__()
        if not all(0 < period < math.inf for period in periods):
            raise UserError(f"periods are {list(periods)}; each must be positive and finite.")
        frequencies = 2 * math.pi / torch.tensor(periods)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.channels = 1 + 2 * len(periods)

    def scales(self, c: Tensor, sigma_data: float) -> Tensor:
        """√(σ²+σ_d²), and what noise leaves of each wave, (B, 1 + K)."""
        sigma = torch.exp(4 * c)[:, None]
        of_u = (sigma.square() + sigma_data**2).sqrt()
        return torch.cat([of_u, torch.exp(-0.5 * (self.frequencies * sigma).square())], 1)

    def forward(self, u: Tensor, scales: Tensor) -> Tensor:
        """(B, C (1 + 2K), H, W)."""
        cosines, sines = self._undamped(u, scales)
        left = _left(scales)
        return torch.cat([u, (cosines * left).flatten(1, 2), (sines * left).flatten(1, 2)], 1)

    def pullback(self, grad: Tensor, u: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
        """The cotangents of u and of ``scales``."""
        cosines, sines = self._undamped(u, scales)
        to_u, to_waves = grad[:, : u.shape[1]], grad[:, u.shape[1] :]
        to_cosines, to_sines = (
            part.unflatten(1, (-1, u.shape[1])) for part in to_waves.chunk(2, 1)
        )
        along = (to_sines * cosines - to_cosines * sines) * _left(scales)
        to_x = (along * self.frequencies[:, None, None, None]).sum(1)
        to_left = (to_cosines * cosines + to_sines * sines).sum((2, 3, 4))
        to_scale = (to_x * u).sum((1, 2, 3))[:, None]
        return to_u + _of_u(scales) * to_x, torch.cat([to_scale, to_left], 1)

    def _undamped(self, u: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each (B, K, C, H, W)."""
        phase = self.frequencies[:, None, None, None] * (_of_u(scales) * u)[:, None]
        return phase.cos(), phase.sin()


def _of_u(scales: Tensor) -> Tensor:
    return scales[:, 0, None, None, None]


def _left(scales: Tensor) -> Tensor:
    return scales[:, 1:, None, None, None]
