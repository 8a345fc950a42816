"""A scalar potential φ(u, c, label) from a vector backbone F.

With the preconditioning of the energy denoiser, ∇_u φ plays the part of EDM's raw network F.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from energydiff.potentials.backbone import Backbone


class Potential(nn.Module, ABC):
    """φ(u, c, label), (B,), accumulated in u's precision even where F runs in bfloat16."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    @abstractmethod
    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        """Shapes as in :meth:`Backbone.forward`; (B,)."""


class InnerProduct(Potential):
    """φ = ½⟨u, F(u)⟩: the default, and the best of those measured on digits."""

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return 0.5 * (u * self.backbone(u, c, label).to(u.dtype)).flatten(1).sum(1)


class SummedOutput(Potential):
    """φ = Σ F(u): the sum of the output map."""

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return self.backbone(u, c, label).to(u.dtype).flatten(1).sum(1)
