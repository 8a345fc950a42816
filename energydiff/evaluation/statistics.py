"""Mean and covariance of features, gathered while samples are drawn and over ranks.

Apart from the rest of the package, because torchmetrics imports a plotting library.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

from energydiff.errors import UserError


class FeatureStatistics(Metric):
    """Mean (f,) and covariance (f, f) of all features it was given, on all ranks, in float64.

    Equal to ``gaussian_statistics`` of all features at once, whatever the batches. Sums are taken
    of x − shift: what rounding loses grows with ((mean − shift)/std)², so the shift should be near
    the mean, as that of the reference is.

    Args:
        shift: (f,), the same on all ranks.
    """

    full_state_update = False
    shift: Tensor
    count: Tensor
    total: Tensor
    products: Tensor

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift.double(), persistent=False)
        dim = len(shift)
        states = {
            "count": torch.zeros((), dtype=torch.int64),
            "total": torch.zeros(dim, dtype=torch.float64),
            "products": torch.zeros(dim, dim, dtype=torch.float64),
        }
        for name, zero in states.items():
            self.add_state(name, zero, dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """features: (B, f)."""
        shifted = features.double() - self.shift
        self.count += len(shifted)
        self.total += shifted.sum(0)
        self.products += shifted.T @ shifted

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance with divisor n − 1; the whole of all ranks.

        Raises UserError for fewer than two samples in all, or features that are not finite.
        """
        n = int(self.count)
        if n < 2:
            raise UserError(f"a covariance needs at least two samples, got {n}.")
        if not bool(self.total.isfinite().all()):
            raise UserError(f"among {n} samples some have features that are not finite.")
        offset = self.total / n
        return self.shift + offset, (self.products - n * offset.outer(offset)) / (n - 1)
