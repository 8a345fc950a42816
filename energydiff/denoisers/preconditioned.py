"""EDM preconditioning (Karras et al. 2022, table 1), made conservative.

With u = x/√(σ²+σ_d²) and c = ¼ log σ, the energy a potential φ defines is

    E(x, σ) = ½‖u‖² + (d/2) log 2π(σ²+σ_d²) − (σ_d/σ) φ(u, c) + gauge(σ)

so that D = x − σ²∇E = c_skip x + c_out ∇_u φ(u, c) with exactly EDM's coefficients: the gradient
of the potential plays the part of the raw network. φ = 0 is the exact energy of
N(0, (σ²+σ_d²) I), constant included. The unconstrained baseline puts the raw network itself there.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor

from energydiff.denoisers.compiled import CompiledGradient
from energydiff.denoisers.gauge import Gauge
from energydiff.energies.base import (
    Denoiser,
    Energy,
    Sigma,
    per_sample,
    require_labels,
    require_samples,
    sigma_vector,
)
from energydiff.errors import UserError
from energydiff.potentials import Backbone, ConvexDenoiser, Potential, ScalarOutput


class EnergyDenoiser(Energy):
    """The energy of a potential over a backbone.

    Args:
        potential: φ(u, c, label).
        sigma_data: σ_d, RMS of the data about zero, in units of x.
        compile: compute energy and gradient in one compiled function (``torch.compile``), checked
            against the eager gradient on first use.
    """

    def __init__(self, potential: Potential, sigma_data: float, compile: bool = False) -> None:
        super().__init__()
        self.shape = potential.backbone.shape
        self.num_classes = potential.backbone.num_classes
        self.potential = potential
        self.convex_denoiser = isinstance(potential, ConvexDenoiser)
        self.sigma_data = _positive_sigma_data(sigma_data)
        self.gauge = Gauge()
        self.compiled = CompiledGradient() if compile else None

    def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        sigma = sigma_vector(sigma, x)
        u, variance = _scale_input(x, sigma, self.sigma_data)
        phi = self.potential(u, _noise_input(sigma), label)
        return self._energy(u, variance, sigma, phi)

    def _energy(self, u: Tensor, variance: Tensor, sigma: Tensor, phi: Tensor) -> Tensor:
        gaussian = 0.5 * u.square().flatten(1).sum(1) + 0.5 * self.dim * torch.log(
            2 * math.pi * variance
        )
        return gaussian - self.sigma_data / sigma * phi + self.gauge(sigma.log())

    def value_and_grad(
        self, x: Tensor, sigma: Sigma, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if isinstance(self.potential, ScalarOutput):
            return self._analytic_value_and_grad(self.potential, x, sigma, label)
        if self.compiled is None or torch.compiler.is_compiling():
            return super().value_and_grad(x, sigma, label)
        require_labels(self, x, label)
        eager = partial(super().value_and_grad, x, sigma, label)
        through_x = x.requires_grad
        keep = torch.is_grad_enabled() and (through_x or self._trains())
        with self._differentiable(x, sigma, label, keep=keep) as (x, sigma, label):
            x = x if keep and through_x else x.detach()
            with torch.set_grad_enabled(keep):
                return self.compiled(self, x, sigma_vector(sigma, x), label, eager)

    def _analytic_value_and_grad(
        self, potential: ScalarOutput, x: Tensor, sigma: Sigma, label: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """E and ∇E by the potential's own gradient."""
        with self._scaled(x, sigma, label) as (u, variance, sigma, label):
            phi, to_u = potential.value_and_grad(u, _noise_input(sigma), label)
            return self._energy(u, variance, sigma, phi), self._grad(u, variance, sigma, to_u)

    def value_and_grads(
        self, x: Tensor, sigma: Sigma, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As for every energy, by one joint gradient of φ over (u, c) and the chain rule:

        ∂E/∂log σ = dk − k‖u‖² + (σ_d/σ)(φ + k⟨u, ∇φ⟩ − ¼ ∂φ/∂c) + c′,  k = σ²/(σ²+σ_d²)
        """
        with self._scaled(x, sigma, label) as (u, variance, sigma, label):
            phi, to_u, to_c = self.potential.value_and_grads(u, _noise_input(sigma), label)
            k = sigma.square() / variance
            along_u = (u * to_u).flatten(1).sum(1)
            slope = k * (self.dim - u.square().flatten(1).sum(1))
            slope = slope + self.sigma_data / sigma * (phi + k * along_u - 0.25 * to_c)
            slope = slope + self.gauge.derivative(sigma.log())
            energy = self._energy(u, variance, sigma, phi)
            return energy, self._grad(u, variance, sigma, to_u), slope

    @contextmanager
    def _scaled(
        self, x: Tensor, sigma: Sigma, label: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        """u, σ²+σ_d², σ and the label where gradients written out are taken; a graph is kept where
        autograd's would be."""
        require_samples(self, x)
        require_labels(self, x, label)
        keep = torch.is_grad_enabled() and (x.requires_grad or self._trains())
        with self._differentiable(x, sigma, label, keep=keep) as (x, sigma, label):
            sigma = sigma_vector(sigma, x)
            with torch.set_grad_enabled(keep):
                yield *_scale_input(x, sigma, self.sigma_data), sigma, label

    def _grad(self, u: Tensor, variance: Tensor, sigma: Tensor, to_u: Tensor) -> Tensor:
        """∇E from ∇φ."""
        return (u - per_sample(self.sigma_data / sigma, u) * to_u) * per_sample(variance.rsqrt(), u)


class UnconstrainedDenoiser(Denoiser):
    """D = c_skip x + c_out F(u, c): the same backbone without an energy behind it."""

    def __init__(self, backbone: Backbone, sigma_data: float) -> None:
        super().__init__()
        self.shape = backbone.shape
        self.num_classes = backbone.num_classes
        self.backbone = backbone
        self.sigma_data = _positive_sigma_data(sigma_data)

    def forward(self, *_: object, **__: object) -> NoReturn:
        """There is no energy: ``NoEnergyError``, as for everything derived from one."""
        self.require_energy()
        raise AssertionError

    score = free_energy = value_and_grad = value_and_grads = noise_derivative = forward

    def denoise(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        require_samples(self, x)
        require_labels(self, x, label)
        sigma = sigma_vector(sigma, x)
        u, variance = _scale_input(x, sigma, self.sigma_data)
        raw = self.backbone(u, _noise_input(sigma), label).to(x.dtype)
        skip = self.sigma_data**2 / variance
        out = sigma * self.sigma_data * variance.rsqrt()
        return per_sample(skip, x) * x + per_sample(out, x) * raw


def _scale_input(x: Tensor, sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor]:
    """u = x/√(σ²+σ_d²), like x, and the variance σ²+σ_d², (B,)."""
    variance = sigma.square() + sigma_data**2
    return x * per_sample(variance.rsqrt(), x), variance


def _noise_input(sigma: Tensor) -> Tensor:
    """c = ¼ log σ, (B,); one value expanded where σ is one, so that a network embeds it once."""
    if sigma.stride(0) == 0:
        return (0.25 * sigma[:1].log()).expand(sigma.shape)
    return 0.25 * sigma.log()


def _positive_sigma_data(value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"sigma_data is {value}; it is the RMS of the data and must be positive.")
    return float(value)
