"""Nats of a density in model coordinates to bits per dimension of the data.

Two different numbers go by that name, and both are relative to a unit:

- *density*: −log₂ of the density of the noisy sample in raw units, per dimension. Raw values
  low … high span 2 in model coordinates, so it is nats/(d ln 2) + log₂((high − low)/2). It belongs
  to x0 + σ_min ε, depends on σ_min and may be negative.
- *lossless*: the expected length of a code for the raw integers k themselves, no shorter than
  what the best code needs. Sending z = x0 + σ_min ε first and k given z after gets the bits of q
  back (Kingma et al. 2021, eq. 11; bits-back coding):

      −log P(k) ≤ E_z [ −log p_σmin(z) + log q(z | k) − log P(k | z) ]

  with q(z | k) = N(x0(k), σ_min² I) and P(k | z) ∝ q(z | k) entry by entry over all levels. It is
  what published bits/dim of 8-bit images mean. It holds for a normalised p: for an energy, up to
  the error of its normalisation. No uniform dequantisation is involved.
"""

import math
from statistics import fmean

import torch
from torch import Tensor

from energydiff.data import Normalization
from energydiff.errors import UserError


def bits_per_dim(nats: Tensor, dim: int, normalization: Normalization) -> Tensor:
    """Density of the noisy sample in raw units, bits per dimension; (B,) to (B,).

    Args:
        nats: −log p_σmin(x) in model coordinates.
        dim: d, numbers in a sample.
    """
    units = [(normalization.high - normalization.low) / 2]
    if normalization.moments is not None:
        _, units = map(list, normalization.moments)  # of as many numbers each
    return nats / (dim * math.log(2)) + fmean(map(math.log2, units))


def lossless_bits_per_dim(
    nats: Tensor, x: Tensor, raw: Tensor, sigma: float, normalization: Normalization
) -> Tensor:
    """Code length of raw integers in bits per dimension, one draw of noise: (B,) float64.

    Args:
        nats: −log p_σmin(x), or a bound on it, (B,).
        x: the noisy samples x0 + σ_min ε of ``raw``, (B, \\*shape), in model coordinates.
        raw: integers from low to high, (B, \\*shape).
        sigma: σ_min.
    """
    low, high = normalization.low, normalization.high
    whole = raw.round().equal(raw) and float(low).is_integer() and float(high).is_integer()
    whole = whole and normalization.moments is None
    if not whole or bool(((raw < low) | (raw > high)).any()):
        raise UserError(
            f"lossless bits need raw integers from {low:g} to {high:g}; use bits_per_dim for data"
            " of other values."
        )
    x, raw = x.double().flatten(1).cpu(), raw.flatten(1).cpu()
    levels = normalization.encode(torch.arange(int(low), int(high) + 1)).double()
    exponents = -((x[..., None] - levels) ** 2) / (2 * sigma**2)
    own = exponents.gather(2, (raw.long() - int(low))[..., None]).squeeze(2)
    log_q = own.sum(1) - 0.5 * x.shape[1] * math.log(2 * math.pi * sigma**2)
    log_given = (own - exponents.logsumexp(2)).sum(1)
    return (nats.cpu().double() + log_q - log_given) / (x.shape[1] * math.log(2))
