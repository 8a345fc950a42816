"""The range of noise a model is made for."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from energydiff.errors import UserError


@dataclass(frozen=True)
class NoiseRange:
    """σ from ``sigma_min`` to ``sigma_max``, units of x; ``low, high = noise`` takes it apart.

    Raises:
        UserError: unless 0 < sigma_min < sigma_max < ∞.
    """

    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise UserError(
                f"sigma_min = {self.sigma_min} and sigma_max = {self.sigma_max} must obey"
                " 0 < sigma_min < sigma_max, both finite."
            )

    def __iter__(self) -> Iterator[float]:
        return iter((self.sigma_min, self.sigma_max))
