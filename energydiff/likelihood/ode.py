"""−log p of noisy data, by the energy and by the probability-flow ODE.

What is measured is the density p_σmin of x = x0 + σ_min ε, in nats and in model coordinates; see
``bits`` for other units. Two densities of one model that agree only if it is consistent:

    energy   −log p(x) = E(x, σ_min), if E is normalised: trained dually, or calibrated
    ODE      dx/dlog σ = x − D carries p_σmin into p_σmax, and along it
             d log p/dlog σ = −(d − tr ∂D/∂x)      (Chen et al. 2018; Song et al. 2021b, eq. 39)

The first costs one evaluation and inherits the error of the gauge. The second is normalised by
construction and needs no energy, only a denoiser. The third estimate, ``denoising_bound``, is a
bound.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

from energydiff.energies import GaussianMixture, NoiseRange
from energydiff.energies.base import Denoiser, Energy, at_least_float32
from energydiff.errors import UserError
from energydiff.likelihood.divergence import denoise_and_divergence, trace_probes


@dataclass(frozen=True)
class OdeLikelihood:
    """Attributes:
    nats: −log p_σmin(x), (B,), float64.
    latent: where the ODE carries x at σ_max, like x.
    nfe: calls of the denoiser, each with the passes back that its trace takes.
    """

    nats: Tensor
    latent: Tensor
    nfe: int


def gaussian_prior(shape: tuple[int, ...], sigma_data: float) -> GaussianMixture:
    """The energy that is N(0, (σ²+σ_d²) I) at every noise: what is known at σ_max."""
    return GaussianMixture(torch.zeros(1, *shape), sigma_data)


def ode_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    sigma_min: float,
    sigma_max: float,
    prior: Energy,
    label: Tensor | None = None,
    *,
    probes: int | None = 1,
    seed: int = 0,
    first: int = 0,
    method: Literal["RK45", "DOP853"] = "RK45",
    tolerance: float = 1e-5,
) -> OdeLikelihood:
    """−log p_σmin(x) by the probability-flow ODE, for any denoiser.

    SciPy's adaptive solver takes the whole batch as one system in float64, so one step size serves
    all samples and the last digits of one, within ``tolerance``, depend on the others.

    Args:
        x: noisy samples x0 + σ_min ε, (B, \\*shape), in model coordinates.
        prior: its energy at σ_max is −log p_σmax: ``gaussian_prior``, or the model's own energy; on
            the device of x.
        probes: random signs per sample for the trace, held fixed along the path: an unbiased
            estimate of the integral; ``None`` for the exact trace, d backward passes a call.
        seed, first: as in :func:`trace_probes`.
        tolerance: relative and absolute, of the solver.

    Raises UserError for samples of another shape, noise levels out of order, values that are not
    finite, or where the solver gives up.
    """
    denoiser.check(x, label)
    NoiseRange(sigma_min, sigma_max)  # which refuses what is none
    x = at_least_float32(x).detach()
    vectors = trace_probes(x, probes, seed, first)

    def rate(log_sigma: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
        point = torch.from_numpy(state[: x.numel()]).view_as(x).to(x)
        denoised, divergence = denoise_and_divergence(
            denoiser, point, math.exp(log_sigma), vectors, label
        )
        change = _state(point - denoised, denoiser.dim - divergence)
        if not np.isfinite(change).all():
            raise UserError(
                f"{type(denoiser).__name__} is not finite at σ = {math.exp(log_sigma):g}: no"
                " likelihood."
            )
        return change

    solution: Any = scipy.integrate.solve_ivp(
        rate,
        (math.log(sigma_min), math.log(sigma_max)),
        _state(x, x.new_zeros(len(x))),
        method=method,
        t_eval=(math.log(sigma_max),),
        rtol=tolerance,
        atol=tolerance,
    )
    if not solution.success:
        raise UserError(
            f"the likelihood's ODE could not be solved to tolerance {tolerance:g}:"
            f" {solution.message} Raise the tolerance, or narrow the range of σ."
        )
    end = torch.from_numpy(solution.y[:, -1])
    latent = end[: x.numel()].view_as(x).to(x)
    with torch.no_grad():
        at_sigma_max = prior(latent, sigma_max).cpu().double()
    return OdeLikelihood(at_sigma_max - end[x.numel() :], latent, solution.nfev)


def _state(x: Tensor, integral: Tensor) -> NDArray[np.float64]:
    """All samples and their integrals as one vector."""
    return torch.cat([x.flatten(), integral]).cpu().double().numpy()
