"""Units: a density in raw units by hand, and a code length that is the entropy of the code."""

import math

import pytest
import torch

from energydiff.data import Normalization
from energydiff.energies import EmpiricalData
from energydiff.errors import UserError
from energydiff.likelihood import bits_per_dim, lossless_bits_per_dim

DIGITS = Normalization(0, 16)


@pytest.mark.parametrize("low, high", [(0, 255), (0, 16), (-3.0, 2.0)])
def test_density_in_raw_units(low, high):
    """Raw values N(m, s²) per entry, in model coordinates N(·, (s·2/(high − low))²)."""
    normalization, std, dim = Normalization(low, high), 7.0, 3
    raw = 10 + std * torch.randn(5, dim, dtype=torch.float64)
    model_std = std * 2 / (high - low)
    distance = (raw - 10).square().sum(1) / (2 * std**2)
    nats = distance + dim * math.log(model_std * math.sqrt(2 * math.pi))
    want = (distance + dim * math.log(std * math.sqrt(2 * math.pi))) / (dim * math.log(2))
    torch.testing.assert_close(bits_per_dim(nats, dim, normalization), want)


def test_lossless_bits_of_an_exact_energy_are_the_entropy():
    """Four equally likely images: two bits each while the noise leaves them apart."""
    raw = torch.tensor([[0, 0], [0, 16], [16, 0], [8, 8]])
    energy = EmpiricalData(DIGITS.encode(raw).double())
    raw, sigma = raw.repeat(500, 1), 0.01
    x = DIGITS.encode(raw).double() + sigma * torch.randn(len(raw), 2, dtype=torch.float64)
    bits = lossless_bits_per_dim(energy(x, sigma), x, raw, sigma, DIGITS)
    assert bits.numpy() == pytest.approx(1.0, abs=1e-3)  # 2 bits over 2 dimensions, every draw


@pytest.mark.parametrize("sigma", [0.06, 0.2])
def test_lossless_bits_never_beat_the_entropy(sigma):
    """More noise mixes neighbouring levels and wastes bits: an upper bound still."""
    raw = torch.arange(17)[:, None].repeat(400, 1)
    energy = EmpiricalData(DIGITS.encode(raw[:17]).double())
    x = DIGITS.encode(raw).double() + sigma * torch.randn(len(raw), 1, dtype=torch.float64)
    bits = lossless_bits_per_dim(energy(x, sigma), x, raw, sigma, DIGITS)
    error = float(bits.std()) / len(raw) ** 0.5
    assert math.log2(17) - 4 * error < float(bits.mean()) < math.log2(17) + 0.1


@pytest.mark.parametrize("raw", [torch.tensor([[0.5]]), torch.tensor([[17]]), torch.tensor([[-1]])])
def test_lossless_bits_are_of_integers_in_range(raw):
    with pytest.raises(UserError, match="raw integers from 0 to 16"):
        lossless_bits_per_dim(torch.zeros(1), torch.zeros(1, 1), raw, 0.1, DIGITS)
