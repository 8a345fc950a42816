"""What several tests of samplers share."""

from collections.abc import Callable

import pytest
from torch import Tensor

from energydiff.energies import Energy
from energydiff.energies.base import Sigma


class Counting(Energy):
    """Counts what is asked of an energy: gradients, and energies without a gradient."""

    exact = True

    def __init__(self, inner: Energy) -> None:
        super().__init__()
        self.inner, self.shape = inner, inner.shape
        self.gradients = self.energies = 0

    def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        self.energies += 1
        return self.inner(x, sigma, label)

    def gradient(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        self.gradients += 1
        return self.inner.value_and_grad(x, sigma, label)


@pytest.fixture
def counting() -> Callable[[Energy], Counting]:
    """Wraps an energy so that it counts."""
    return Counting
