"""Declared orders against fitted ones, on Gaussian data, where the flow is known exactly."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from energydiff.energies import GaussianMixture
from energydiff.sampling import (
    DPMSolver2M,
    Euler,
    Guarded,
    Heun,
    Sampler,
    karras_sigmas,
)

STD, HIGH, LOW = 0.5, 5.0, 0.1
Make = Callable[[Tensor], Sampler]
KINDS: tuple[type[Sampler], ...] = (Euler, Heun, DPMSolver2M)
MAKE: dict[str, Make] = {kind.name: kind for kind in KINDS}
MAKE |= {f"guarded_{k.name}": lambda sigmas, k=k: Guarded(k(sigmas)) for k in KINDS}
every_make = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def error(make: Make, steps: int) -> float:
    """Largest error at σ_min: along the flow x − m scales by √((s²+σ'²)/(s²+σ²))."""
    mean, x = torch.randn(1, 3).double(), 5 * torch.randn(4, 3).double()
    result = make(karras_sigmas(steps, LOW, HIGH))(
        GaussianMixture(mean, STD), x_init=x, trace=False
    )
    shrinkage = math.sqrt((STD**2 + LOW**2) / (STD**2 + HIGH**2))
    return (result.samples - mean - shrinkage * (x - mean)).abs().max().item()


def errors(make: Make, counts: list[int]) -> list[float]:
    found = []
    for steps in counts:
        torch.manual_seed(0)
        found.append(error(make, steps))
    return found


@every_make
def test_the_fitted_order_is_the_declared_one(make: Make) -> None:
    counts = [64, 128, 256, 512]
    logs = torch.tensor(errors(make, counts)).log2()
    slope = (logs[0] - logs[-1]).item() / math.log2(counts[-1] / counts[0])
    assert slope == pytest.approx(make([HIGH, LOW]).order, abs=0.2)


@every_make
def test_the_flow_is_followed(make: Make) -> None:
    assert error(make, 512) < 0.01


def test_a_final_denoising_ends_at_the_posterior_mean() -> None:
    energy, x = GaussianMixture(torch.zeros(1, 2), 0.5), torch.randn(3, 2)
    sigmas = karras_sigmas(4, LOW, HIGH)
    plain = Euler(sigmas)(energy, x_init=x).samples
    denoised = Euler(sigmas, final_denoise=True)(energy, x_init=x).samples
    torch.testing.assert_close(denoised, energy.denoise(plain, LOW))
