"""A variational bound on −log p from denoising errors alone.

With z = x0 + σε and q_σ = N(x0, σ²I) its density around one clean x0, the heat equation gives for
the true density (Kong et al. 2023; Song et al. 2021c, theorem 3; pointwise I-MMSE)

    d/dlog σ KL(q_σ ‖ p_σ) = −E_ε ‖x0 − D(z, σ)‖² / σ²

and KL(q_σ ‖ p_σ) = E_ε[−log p_σ(z)] − (d/2) log 2πeσ². Integrated from σ_min to σ_max:

    E_ε[−log p_σmin(z)] = (d/2) log 2πeσ_min² + KL(q_σmax ‖ p_σmax)
                          + ∫ E_ε ‖x0 − D(z, σ)‖² / σ² dlog σ

With a learned D the right side is an upper bound, for every x0, on the left side under the model's
own reverse *SDE* started from the prior; on average over data it exceeds the entropy of p_σmin by
the integral of E‖D − D_true‖²/σ². It bounds neither the energy's density nor the ODE's, which are
different ones unless the model is exact.
"""

import math

import numpy as np
import torch
from torch import Tensor

from energydiff.energies import NoiseRange
from energydiff.energies.base import Denoiser, Energy, at_least_float32
from energydiff.random import LIKELIHOOD, keyed_normal


@torch.no_grad()
def denoising_bound(
    denoiser: Denoiser,
    x0: Tensor,
    sigma_min: float,
    sigma_max: float,
    prior: Energy,
    label: Tensor | None = None,
    *,
    levels: int = 64,
    seed: int = 0,
    first: int = 0,
) -> Tensor:
    """An unbiased estimate of the bound for each clean x0 (B, \\*shape): (B,) float64, nats.

    Gauss–Legendre nodes in log σ with one noise each; the noise leaves a sample an error of about
    log(σ_max/σ_min) √(2k/levels) nats, k the dimension of the data near it: average over samples.

    Args:
        prior: its energy at σ_max is −log p_σmax, as in :func:`ode_likelihood`.
        levels: nodes, one call of the denoiser each; from 32 on the quadrature's own error is
            far below the noise's (on Gaussian data 1e-7 nats per dimension, 1e-3 at 16).
        seed, first: noise belongs to (seed, index of the sample, node), the first sample's index
            being ``first``.
    """
    denoiser.check(x0, label)
    NoiseRange(sigma_min, sigma_max)  # which refuses what is none
    x0 = at_least_float32(x0)

    def noise(node: int) -> Tensor:
        indices = range(first * (levels + 1) + node, (first + len(x0)) * (levels + 1), levels + 1)
        return keyed_normal(seed, indices, tuple(x0.shape[1:]), LIKELIHOOD).to(x0)

    low, high = math.log(sigma_min), math.log(sigma_max)
    total = x0.new_zeros(len(x0), dtype=torch.float64).cpu()
    nodes, weights = np.polynomial.legendre.leggauss(levels)
    for index, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
        sigma = math.exp(low + (high - low) * (node + 1) / 2)
        error = (x0 - denoiser.denoise(x0 + sigma * noise(index), sigma, label)) / sigma
        total += (high - low) / 2 * weight * error.square().flatten(1).sum(1).cpu().double()

    # KL(q_σmax ‖ prior) as E_ε[log q − log prior], whose noise all but cancels.
    last = noise(levels)
    log_q = -0.5 * last.square().flatten(1).sum(1)
    log_q = log_q - 0.5 * denoiser.dim * math.log(2 * math.pi * sigma_max**2)
    total += (log_q + prior(x0 + sigma_max * last, sigma_max)).cpu().double()
    return total + 0.5 * denoiser.dim * math.log(2 * math.pi * math.e * sigma_min**2)
