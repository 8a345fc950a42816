"""Energies that are jointly convex in the natural parameters: V falls at every step of DDIM.

With T = σ², θ = x/T and s = 1/T, let K be jointly convex in (θ, s) with K(0, 0) = 0, as the
log-partition function log ∫ exp(⟨θ, y⟩ − ½ s‖y‖²) p0(y) dy of any data is, and

    ψ(x, T) = T·K(x/T, 1/T),   V = ½‖x‖² − ψ,   E = V/T + (d/2) log 2πT,   D = ∇ψ.

- ψ is convex in x, so ∇D ⪰ 0 and V(x − η∇V, σ) ≤ V(x, σ) − η(1 − η/2)‖∇V‖² for 0 ≤ η ≤ 2.
- ∂ψ/∂T = K(v) − ⟨∇K(v), v⟩ ≤ K(0, 0) = 0 at v = (θ, s), by convexity between v and 0. So
  ∂V/∂σ ≥ 0.

Both parts of a DDIM step lower V, whatever its size and whatever the weights (docs/theory.md). The
second needs K(0, 0) ≤ 0, which leaves no gauge c(σ) to calibrate: a constant c ≥ 0 would do, any
other function need not. There is none. K(0, 0) = 0 makes E that of the data at σ → ∞, constant
included. The networks of this package are log-partition functions, of densities that they learn:
E = −log p_σ of such a density, exactly, and it is trained by maximum likelihood.
"""

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from energydiff.denoisers.compiled import compilable
from energydiff.denoisers.description import NATURAL, describe_learned, described_network
from energydiff.denoisers.preconditioned import positive_sigma_data
from energydiff.energies.base import Energy
from energydiff.errors import UserError
from energydiff.potentials import NaturalNetwork, Network


class NaturalEnergy(Energy):
    """E = V(x, T)/T + (d/2) log 2πT of a network V = ½‖x‖² − ψ, T = σ².

    Autocast does not reach V.

    Args:
        network: V in units of σ_d.
        sigma_data: σ_d, RMS of the data about zero, in units of x.

    Attributes:
        compiler: the backend of ``torch.compile`` that its derivatives are compiled by, if any.
    """

    convex_denoiser = True
    rising_free_energy = True
    compiler: str | None = None

    gradient = compilable(Energy.gradient)
    gradients = compilable(Energy.gradients)

    def __init__(self, network: Network, sigma_data: float) -> None:
        super().__init__()
        if not isinstance(network, NaturalNetwork):
            raise UserError(
                "parametrization natural is for NaturalConvex and NaturalConvexConv, and"
                f" {type(network).__name__} is not convex in the natural parameters."
            )
        self.shape, self.num_classes = network.shape, network.num_classes
        self.exact = network.density
        self.network = network
        self.sigma_data = positive_sigma_data(sigma_data)

    @property
    def normalised(self) -> bool:
        return True  # K(0, 0) = 0

    @compilable
    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            t = (sigma / self.sigma_data).square()
            free_energy = self.network(x / self.sigma_data, t, label)
            return free_energy / t + 0.5 * self.dim * torch.log(2 * math.pi * sigma.square())

    def describe(self) -> dict[str, Any]:
        return describe_learned(self, NATURAL, self.network, self.sigma_data)

    @classmethod
    def build(cls, arguments: Mapping[str, Any], state: Mapping[str, Tensor], what: str) -> Self:
        return cls(described_network(arguments, what), arguments["sigma_data"])
