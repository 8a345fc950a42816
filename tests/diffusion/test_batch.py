"""What a noisy batch says of the noise in it."""

import torch
from torch.testing import assert_close

from energydiff.diffusion import NoisyBatch
from energydiff.energies import EmpiricalData


def test_the_time_target_is_the_noise_derivative_of_a_single_point() -> None:
    """E = ½‖x − x0‖²/σ² + (d/2) log 2πσ², so ∂E/∂log σ = d − ‖x − x0‖²/σ² = d − ‖ε‖²."""
    x0 = torch.randn(1, 2, 3, dtype=torch.float64)
    noise = torch.randn(5, 2, 3, dtype=torch.float64)
    sigma = torch.rand(5, dtype=torch.float64) + 0.1
    batch = NoisyBatch(x0.expand_as(noise), sigma, noise, 0.5)
    assert_close(EmpiricalData(x0).noise_derivative(batch.x, sigma), batch.time_target)
