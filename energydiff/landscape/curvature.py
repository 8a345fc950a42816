"""How V is curved at chosen states: what decides whether a step of a learned energy descends.

For one Euler step the descent part is ≤ 0 if λ_max(∇²V) ≤ 2/η along it, and for every η ≤ 1 if the
denoiser is the gradient of a convex function, λ_min(∇D) = 1 − λ_max(∇²V) ≥ 0. The landscape part is
≤ 0 if ∂V/∂σ ≥ 0. An exact energy has all of these everywhere.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.energies.base import Energy, Sigma, per_sample, sigma_vector
from energydiff.landscape.lanczos import lanczos
from energydiff.random import PROBE, keyed_normal


@dataclass(frozen=True)
class Curvature:
    """Eigenvalues of ∇²V = I − ∇D and the noise derivative at states x, each (B,).

    Attributes:
        highest, lowest: extreme Ritz values of ∇²V. They lie inside the spectrum, so λ_max is at
            least ``highest`` and λ_min at most ``lowest``.
        error: how far an eigenvalue can be from either of them (the larger Lanczos residual).
        noise_slope: ∂V/∂σ at fixed x, units of x.
    """

    highest: Tensor
    lowest: Tensor
    error: Tensor
    noise_slope: Tensor

    @property
    def denoiser_lowest(self) -> Tensor:
        """λ_min(∇D) = 1 − λ_max(∇²V), (B,); negative where D is not monotone."""
        return 1 - self.highest

    @property
    def rising_share(self) -> float:
        """Share of the states with ∂V/∂σ < 0: there less noise raises V."""
        return float((self.noise_slope < 0).double().mean())


def curvature(
    energy: Energy,
    x: Tensor,
    sigma: Sigma,
    label: Tensor | None = None,
    *,
    iterations: int = 30,
    seed: int = 0,
    first: int = 0,
) -> Curvature:
    """Curvature of V at x (B, \\*shape) and σ, by Lanczos on Hessian-vector products.

    Each iteration is one Hessian-vector product of the whole batch; d of them are exact. The vector
    it starts from belongs to (seed, index of the state), the first state's index being ``first``.
    """
    squared = per_sample(sigma_vector(sigma, x), x).square()
    wide = torch.float32 if x.device.type == "mps" else torch.float64

    def product(vector: Tensor) -> Tensor:
        moved = vector.to(x).view_as(x)
        hessian = energy.hessian_vector_product(x, sigma, moved, label)
        return (squared * hessian).detach().flatten(1).to(wide)

    start = keyed_normal(seed, range(first, first + len(x)), tuple(x.shape[1:]), PROBE).to(
        x.device, wide
    )
    lowest, highest, error = lanczos(product, start.flatten(1), min(iterations, energy.dim))
    slope = energy.free_energy_slope(x, sigma, label).detach()
    return Curvature(highest.to(slope), lowest.to(slope), error.to(slope), slope)
