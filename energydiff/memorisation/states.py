"""What an energy says of samples: how low, how steep, how curved, how wide their basins are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from energydiff.energies import Denoiser, EmpiricalData
from energydiff.energies.base import sigma_vector
from energydiff.errors import UserError
from energydiff.landscape.basins import Recovery, recovery
from energydiff.landscape.critical import DENSE, spectrum
from energydiff.landscape.surface import Surface
from energydiff.likelihood.divergence import denoise_and_divergence, trace_probes

PROBES = 64  # of a trace, where the dimensions are too many for all of them


@dataclass(frozen=True)
class States:
    """n samples on the landscape of V(·, σ).

    Attributes:
        free_energy, energy: V, units of x², and E, nats, (n,).
        exact: V of the training set itself at the same points, (n,).
        slope: ‖∇V‖ / √d, (n,).
        eigenvalues: of ∇²V, rising, (n, m): all, or what Lanczos finds of them.
        local_dimension: at each of S noise levels, (S, n).
        back: from how much noise they are found again.
    """

    free_energy: Tensor
    energy: Tensor
    exact: Tensor
    slope: Tensor
    eigenvalues: Tensor
    local_dimension: Tensor
    back: Recovery

    def plain(self, rows: slice) -> dict[str, Any]:
        """Some of them as plain data."""
        returned = self.back.returned[:, rows]
        back = replace(self.back, returned=returned, length=self.back.length[rows])
        return {
            "count": returned.shape[1],
            "V": self.free_energy[rows].tolist(),
            "E": self.energy[rows].tolist(),
            "V_of_data": self.exact[rows].tolist(),
            "slope": self.slope[rows].tolist(),
            "eigenvalues": self.eigenvalues[rows].tolist(),
            "local_dimension": self.local_dimension[:, rows].tolist(),
            "critical_noise": back.critical_noise().tolist(),
            "basin_radius": back.radius().tolist(),
            "recovered": dict(zip(("share", "low", "high"), back.curve.tolist(), strict=True)),
        }


def measure_states(
    surface: Surface,
    x: Tensor,
    train: Tensor,
    sigma: float,
    levels: Sequence[float],
    *,
    delta: float,
    trials: int = 5,
    seed: int = 0,
) -> States:
    """Samples x (n, \\*shape) on the landscape of a model at one noise.

    Args:
        train: what it was trained on, (K, \\*shape), whose exact energy is set beside it.
        levels: noise levels of local dimensions, and above σ_min those that samples are noised to.
        delta: as near as this, units of x, a noised sample has come back.
        trials: of each sample and level.
    """
    states = surface.flat(x)
    value, slope = surface.gradient(states, sigma)
    values, _ = spectrum(surface, states, sigma_vector(sigma, states))
    exact = Surface(EmpiricalData(train.to(surface.device, surface.dtype)))
    constant = 0.5 * surface.energy.densities * surface.dim
    energy = value / sigma**2 + constant * torch.log(
        2 * torch.pi * torch.tensor(sigma, dtype=value.dtype, device=value.device) ** 2
    )
    coarse = surface.coarse
    points = coarse.shaped(coarse.flat(x))
    dimensions = [local_dimension(coarse.energy, points, level) for level in levels]
    lowest = 0.0 if coarse.energy.noise is None else coarse.energy.noise.sigma_min
    return States(
        free_energy=value.cpu(),
        energy=energy.cpu(),
        exact=exact.value(states, sigma).cpu(),
        slope=slope.norm(dim=1).cpu() / surface.dim**0.5,
        eigenvalues=values.cpu(),
        local_dimension=torch.stack(dimensions).cpu(),
        back=recovery(
            coarse.energy,
            points,
            [level for level in levels if level > lowest],
            delta=delta,
            trials=trials,
            seed=seed,
            sigma_min=lowest or 0.1 * min(levels),
        ),
    )


def local_dimension(model: Denoiser, x: Tensor, sigma: float, seed: int = 0) -> Tensor:
    """d + σ²(∇·s + ‖s‖²) with the score s at x (B, \\*shape), (B,): how many directions the data
    spread in around x, as seen at noise σ (Kamkari et al. 2024).

    As σ falls, 0 on an isolated point, 1 on a curve, k on a surface of k dimensions. The divergence
    is exact up to 256 dimensions and Hutchinson's estimate beyond.

    Raises:
        UserError: σ is not positive.
    """
    if not sigma > 0:
        raise UserError(f"sigma is {sigma}; a local dimension is seen at a noise above 0.")
    dim = x[0].numel()
    probes = trace_probes(x, None if dim <= DENSE else PROBES, seed)
    denoised, divergence = denoise_and_divergence(model, x, sigma, probes)
    return divergence + (x - denoised).flatten(1).square().sum(1) / sigma**2
