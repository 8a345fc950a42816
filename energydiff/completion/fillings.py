"""What a completion of masked images is measured against, and the measure.

``missing`` is bool (B, \\*shape) throughout: the pixels that are not to be looked at.
"""

import torch
from torch import Tensor


def fill_with_mean(x: Tensor, missing: Tensor, train: Tensor) -> Tensor:
    """Missing pixels from the mean of the training images (K, \\*shape)."""
    return torch.where(missing, train.mean(0), x)


def fill_from_nearest(x: Tensor, missing: Tensor, train: Tensor) -> Tensor:
    """Missing pixels from the training image nearest in the visible ones."""
    visible = (~missing).flatten(1).to(x.dtype)
    known, stored = visible * x.flatten(1), train.flatten(1)
    distance = visible @ stored.square().T - 2 * known @ stored.T  # up to a constant per image
    return torch.where(missing, train[distance.argmin(1)], x)


def missing_error(filled: Tensor, x: Tensor, missing: Tensor, power: int = 2) -> Tensor:
    """Mean of |filled − x|^power over the missing pixels of each image, (B,)."""
    errors = (filled - x).abs().pow(power) * missing
    return errors.flatten(1).sum(1) / missing.flatten(1).sum(1)
