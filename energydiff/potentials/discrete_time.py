"""Networks trained at discrete steps of a variance-preserving chain, as fields F(u, c).

With x_t = √ᾱ_t x0 + √(1−ᾱ_t) ε (Ho et al. 2020) and σ² = (1−ᾱ_t)/ᾱ_t, x_t is u = x/√(σ²+1): what
EDM's preconditioning hands a network where σ_d = 1. Of what such a network tells, the field that
gives the same denoiser D = c_skip x + c_out F is

    ε                           F = σu − √(1+σ²) ε
    x0                          F = (√(1+σ²) x0 − u)/σ
    v = √ᾱ ε − √(1−ᾱ) x0        F = −v                (Salimans & Ho 2022)
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from energydiff.errors import UserError
from energydiff.potentials.wrapped import Wrapped

Schedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]


class DiscreteTime(Wrapped):
    """A module f(x_t, t) of DDPM's kind, as the U-Nets of ``diffusers`` are; use it with σ_d = 1.

    t is linear in log σ between the steps of the chain, and ends with it.

    Args:
        shape: shape of one sample.
        network, arguments, num_classes: as of :class:`Wrapped`.
        prediction: what the module tells: ε, x0 or v.
        schedule: of β, as ``diffusers`` calls it.
        beta_start, beta_end: its ends; the cosine schedule has none.
        steps: length of the chain.

    Attributes:
        log_levels: log σ of each step, (steps,), rising.

    Raises:
        UserError: there is no such class, or the chain is none.
    """

    log_levels: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        network: type[nn.Module] | str,
        arguments: dict[str, Any] | None = None,
        prediction: Literal["epsilon", "sample", "v_prediction"] = "epsilon",
        schedule: Schedule = "linear",
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        steps: int = 1000,
        num_classes: int = 0,
    ) -> None:
        super().__init__(shape, network, arguments, num_classes=num_classes)
        self.prediction = prediction
        levels = chain_levels(schedule, beta_start, beta_end, steps)
        self.register_buffer("log_levels", levels.log().float(), persistent=False)

    def time(self, c: Tensor) -> Tensor:
        """t, (B,)."""
        log_sigma, levels = 4 * c, self.log_levels.to(c.dtype)
        right = torch.bucketize(log_sigma.detach(), levels).clamp(1, len(levels) - 1)
        low, high = levels[right - 1], levels[right]
        share = ((log_sigma - low) / (high - low)).clamp(0, 1)
        return right - 1 + share

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        told = super().forward(u, c, label)
        sigma = (4 * c).exp().view(-1, *[1] * (u.ndim - 1))
        if self.prediction == "epsilon":
            return sigma * u - (1 + sigma.square()).sqrt() * told
        if self.prediction == "sample":
            return ((1 + sigma.square()).sqrt() * told - u) / sigma
        return -told


def chain_levels(schedule: Schedule, beta_start: float, beta_end: float, steps: int) -> Tensor:
    """σ_t of a chain, (steps,) float64.

    Raises:
        UserError: the noise does not rise from step to step.
    """
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    if schedule == "linear":
        beta = beta_start + ramp * (beta_end - beta_start)
    elif schedule == "scaled_linear":
        beta = (beta_start**0.5 + ramp * (beta_end**0.5 - beta_start**0.5)).square()
    elif schedule == "squaredcos_cap_v2":  # Nichol & Dhariwal 2021, eq. 17
        t = torch.arange(steps + 1, dtype=torch.float64) / steps
        survives = ((t + 0.008) / 1.008 * math.pi / 2).cos().square()
        beta = (1 - survives[1:] / survives[:-1]).clamp(max=0.999)
    else:
        raise UserError(
            f"schedule is {schedule!r}; choose linear, scaled_linear or squaredcos_cap_v2."
        )
    if steps < 2 or not (beta.min() > 0 and beta.max() < 1):
        raise UserError(
            f"a chain of {steps} steps from β = {beta_start:g} to {beta_end:g} is none: give at"
            " least 2 steps and 0 < beta_start, beta_end < 1."
        )
    kept = (1 - beta).cumprod(0)
    return ((1 - kept) / kept).sqrt()
