"""The sum of fields that need not have an energy: how unconstrained denoisers are composed.

Σ w_k s_k is the score of a product of experts where every s_k is one; a field that is no gradient
makes it the score of nothing. Compositions of energies are in
:mod:`energydiff.energies.composition`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from energydiff.energies.base import Denoiser, Sigma
from energydiff.energies.composition import common_noise
from energydiff.errors import UserError


class ScoreSum(Denoiser):
    """D = x + Σ w_k (D_k − x), the field Σ w_k s_k: no energy, even where members have one.

    Args:
        denoisers: the K members, of samples of one shape.
        weights: w_k, (K,).
        labels: class of each member for good, (K,); without classes −1.
    """

    def __init__(
        self, denoisers: Sequence[Denoiser], weights: Sequence[float], labels: Sequence[int]
    ) -> None:
        super().__init__()
        shapes = sorted({tuple(member.shape) for member in denoisers})
        if len(shapes) != 1 or not len(denoisers) == len(weights) == len(labels):
            raise UserError(
                "ScoreSum needs denoisers of samples of one shape with a weight and a label each,"
                f" got {len(denoisers)} of shapes {shapes}, {len(weights)} weights and"
                f" {len(labels)} labels."
            )
        self.members = nn.ModuleList(denoisers)
        self.weights, self.labels = tuple(weights), tuple(labels)
        self.shape, self.noise = denoisers[0].shape, common_noise("ScoreSum", denoisers)

    def denoise(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        moved = x
        for weight, own, member in zip(self.weights, self.labels, self.members, strict=True):
            assert isinstance(member, Denoiser)
            given = torch.full((len(x),), own, device=x.device) if member.num_classes else None
            moved = moved + weight * (member.denoise(x, sigma, given) - x)
        return moved
