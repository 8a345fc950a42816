"""EDM preconditioning (Karras et al. 2022, table 1), made conservative.

With u = x/√(σ²+σ_d²) and c = ¼ log σ, the energy a potential φ defines is

    E(x, σ) = ½‖u‖² + (d/2) log 2π(σ²+σ_d²) − (σ_d/σ) φ(u, c) + gauge(σ)

so that D = x − σ²∇E = c_skip x + c_out ∇_u φ(u, c) with exactly EDM's coefficients: the gradient
of the potential plays the part of the raw network. φ = 0 is the exact energy of
N(0, (σ²+σ_d²) I), constant included. The unconstrained baseline puts the raw network itself there.
"""

import math
from collections.abc import Mapping
from typing import Any, NoReturn, Self

import torch
from torch import Tensor

from energydiff.denoisers.compiled import compilable
from energydiff.denoisers.description import (
    UNCONSTRAINED,
    describe_learned,
    described_network,
)
from energydiff.denoisers.gauge import Gauge
from energydiff.energies.base import Denoiser, Energy, Sigma, per_sample, sigma_vector
from energydiff.errors import UserError
from energydiff.potentials import Backbone, Potential, ScalarNetwork, ScalarOutput
from energydiff.potentials.potential import find_potential, name_of


class EnergyDenoiser(Energy):
    """The energy of a potential over a backbone.

    Args:
        potential: φ(u, c, label).
        sigma_data: σ_d, RMS of the data about zero, in units of x.

    Attributes:
        compiler: the backend of ``torch.compile`` that its derivatives are compiled by, if any.
    """

    compiler: str | None = None

    def __init__(self, potential: Potential, sigma_data: float) -> None:
        super().__init__()
        if potential.noise_blind:
            raise UserError(f"{type(potential).__name__} is noise-blind: make a BlindEnergy of it.")
        self.shape = potential.backbone.shape
        self.num_classes = potential.backbone.num_classes
        self.potential = potential
        self.convex_denoiser = potential.convex_denoiser
        self.sigma_data = positive_sigma_data(sigma_data)
        if isinstance(potential.backbone, ScalarNetwork):
            potential.backbone.sigma_data = self.sigma_data
        self.gauge = Gauge()

    @property
    def normalised(self) -> bool:
        return bool(self.gauge.offset.any())  # once it is calibrated

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        u, variance = _scale_input(x, sigma, self.sigma_data)
        phi = self.potential(u, _noise_input(sigma), label)
        return self._energy(u, variance, sigma, phi)

    def _energy(self, u: Tensor, variance: Tensor, sigma: Tensor, phi: Tensor) -> Tensor:
        gaussian = 0.5 * u.square().flatten(1).sum(1) + 0.5 * self.dim * torch.log(
            2 * math.pi * variance
        )
        return gaussian - self.sigma_data / sigma * phi + self.gauge(sigma.log())

    @compilable
    def gradient(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        if not isinstance(self.potential, ScalarOutput):
            return super().gradient(x, sigma, label)
        u, variance = _scale_input(x, sigma, self.sigma_data)
        phi, to_u = self.potential.value_and_grad(u, _noise_input(sigma), label)
        return self._energy(u, variance, sigma, phi), self._grad(u, variance, sigma, to_u)

    def grad(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        if self.compiler is not None or not isinstance(self.potential, ScalarOutput):
            return super().grad(x, sigma, label)
        u, variance = _scale_input(x, sigma, self.sigma_data)
        to_u = self.potential.grad(u, _noise_input(sigma), label)
        return self._grad(u, variance, sigma, to_u)

    @compilable
    def gradients(
        self, x: Tensor, sigma: Tensor, label: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As for every energy, by one joint gradient of φ over (u, c) and the chain rule:

        ∂E/∂log σ = dk − k‖u‖² + (σ_d/σ)(φ + k⟨u, ∇φ⟩ − ¼ ∂φ/∂c) + c′,  k = σ²/(σ²+σ_d²)
        """
        u, variance = _scale_input(x, sigma, self.sigma_data)
        phi, to_u, to_c = self.potential.value_and_grads(u, _noise_input(sigma), label)
        k = sigma.square() / variance
        along_u = (u * to_u).flatten(1).sum(1)
        slope = k * (self.dim - u.square().flatten(1).sum(1))
        slope = slope + self.sigma_data / sigma * (phi + k * along_u - 0.25 * to_c)
        slope = slope + self.gauge.derivative(sigma.log())
        energy = self._energy(u, variance, sigma, phi)
        return energy, self._grad(u, variance, sigma, to_u), slope

    def _grad(self, u: Tensor, variance: Tensor, sigma: Tensor, to_u: Tensor) -> Tensor:
        """∇E from ∇φ."""
        return (u - per_sample(self.sigma_data / sigma, u) * to_u) * per_sample(variance.rsqrt(), u)

    def describe(self) -> dict[str, Any]:
        return describe_learned(
            self, name_of(self.potential), self.potential.backbone, self.sigma_data
        )

    @classmethod
    def build(cls, arguments: Mapping[str, Any], state: Mapping[str, Tensor], what: str) -> Self:
        name, sigma_data = arguments["parametrization"], arguments["sigma_data"]
        if name == UNCONSTRAINED:
            raise UserError(f"{what} is an {cls.__name__}, but its parametrization is {name}.")
        kind = find_potential(name)
        return cls(kind.of(described_network(arguments, what), sigma_data), sigma_data)


class UnconstrainedDenoiser(Denoiser):
    """D = c_skip x + c_out F(u, c): the same backbone without an energy behind it.

    Attributes:
        compiler: the backend of ``torch.compile`` that D is compiled by, if any.
    """

    compiler: str | None = None

    def __init__(self, backbone: Backbone, sigma_data: float) -> None:
        super().__init__()
        self.shape = backbone.shape
        self.num_classes = backbone.num_classes
        self.backbone = backbone
        self.sigma_data = positive_sigma_data(sigma_data)

    def forward(self, *_: object, **__: object) -> NoReturn:
        """There is no energy: ``NoEnergyError``, as for everything derived from one."""
        self.require_energy()
        raise AssertionError

    score = free_energy = value_and_grad = value_and_grads = noise_derivative = forward

    def denoise(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        self.check(x, label)
        return self._posterior_mean(x, sigma_vector(sigma, x), label)

    @compilable
    def _posterior_mean(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        u, variance = _scale_input(x, sigma, self.sigma_data)
        raw = self.backbone(u, _noise_input(sigma), label).to(x.dtype)
        skip = self.sigma_data**2 / variance
        out = sigma * self.sigma_data * variance.rsqrt()
        return per_sample(skip, x) * x + per_sample(out, x) * raw

    def describe(self) -> dict[str, Any]:
        return describe_learned(self, UNCONSTRAINED, self.backbone, self.sigma_data)

    @classmethod
    def build(cls, arguments: Mapping[str, Any], state: Mapping[str, Tensor], what: str) -> Self:
        backbone = described_network(arguments, what)
        if not isinstance(backbone, Backbone) or arguments["parametrization"] != UNCONSTRAINED:
            raise UserError(
                f"{what} is the baseline {cls.__name__}, but its parametrization"
                f" {arguments['parametrization']} or its network makes an energy."
            )
        return cls(backbone, arguments["sigma_data"])


def _scale_input(x: Tensor, sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor]:
    """u = x/√(σ²+σ_d²), like x, and the variance σ²+σ_d², (B,)."""
    variance = sigma.square() + sigma_data**2
    return x * per_sample(variance.rsqrt(), x), variance


def _noise_input(sigma: Tensor) -> Tensor:
    """c = ¼ log σ, (B,); one value expanded where σ is one, so that a network embeds it once."""
    if sigma.stride(0) == 0:
        return (0.25 * sigma[:1].log()).expand(sigma.shape)
    return 0.25 * sigma.log()


def positive_sigma_data(value: float) -> float:
    """σ_d, or ``UserError`` if it is none."""
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"sigma_data is {value}; it is the RMS of the data and must be positive.")
    return float(value)
