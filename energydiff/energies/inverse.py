"""Linear inverse problems y = A x0 + noise as one more energy: guided sampling.

The posterior energy is E(x, σ) − log p(y | x, σ). With x0 | x taken as Gaussian about D(x, σ) with
variance r² = σ²σ_d²/(σ² + σ_d²), y given x is N(A D, Σ), Σ = σ_y² I + r² A Aᵀ (ΠGDM, Song et al.
2023, here as an energy, so that every sampler, trace and certificate applies to it). Exact for an
isotropic Gaussian density of variance σ_d², an approximation else; exact for all as σ → 0.

Its gradient holds ∂D/∂x: a step costs a Hessian-vector product beside the gradient.
"""

import torch
from torch import Tensor

from energydiff.energies.base import Energy, per_sample
from energydiff.errors import UserError


class LinearInverse(Energy):
    """E(x, σ) + ½ (y − A D)ᵀ Σ⁻¹ (y − A D) + ½ log det Σ/σ_y², nats.

    The likelihood is scaled to at most 1, so the data density times it has a mass of at most 1, and
    V keeps its properties where the energy is exact: ∂V/∂σ ≥ 0 among them.

    Args:
        prior: the energy of the data.
        operator: A, (m, \\*shape) of the prior: one row per measurement. A selection of pixels is
            inpainting.
        y: measurements, (m,) for all samples or (B, m), units of x.
        sigma_y: σ_y > 0, standard deviation of the measurements' noise, units of x.
        sigma_data: σ_d, the RMS of the data about its mean.
    """

    operator: Tensor
    y: Tensor
    gains: Tensor

    def __init__(
        self, prior: Energy, operator: Tensor, y: Tensor, sigma_y: float, sigma_data: float
    ) -> None:
        super().__init__()
        if tuple(operator.shape[1:]) != tuple(prior.shape) or len(operator) != y.shape[-1]:
            raise UserError(
                f"operator must be (m, *{tuple(prior.shape)}) with y (m,) or (B, m), got"
                f" {tuple(operator.shape)} and {tuple(y.shape)}."
            )
        if not sigma_y > 0 or not sigma_data > 0:
            raise UserError(
                f"sigma_y is {sigma_y} and sigma_data {sigma_data}; both must be positive."
            )
        self.prior, self.shape, self.num_classes = prior, prior.shape, prior.num_classes
        self.densities = prior.densities
        self.noise, self.sigma_y, self.sigma_data = prior.noise, sigma_y, sigma_data
        # In the eigenbasis of A Aᵀ, Σ is diagonal.
        rows = operator.flatten(1)
        values, vectors = torch.linalg.eigh((rows @ rows.T).double())
        self.register_buffer("operator", (vectors.T.to(rows) @ rows).view_as(operator))
        self.register_buffer("y", y @ vectors.to(y))
        self.register_buffer("gains", values.clamp(min=0).to(rows))
        self.train(prior.training)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        energy, grad = self.prior.value_and_grad(x, sigma, label)
        denoised = x - per_sample(sigma, x).square() * grad
        spread = (sigma * self.sigma_data).square() / (sigma.square() + self.sigma_data**2)
        variance = self.sigma_y**2 + spread[:, None] * self.gains
        misfit = self.y - denoised.flatten(1) @ self.operator.flatten(1).T
        log_det = (variance / self.sigma_y**2).log()
        return energy + 0.5 * (misfit.square() / variance + log_det).sum(1)
