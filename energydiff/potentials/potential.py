"""A scalar potential φ(u, c, label) from a network.

With the preconditioning of the energy denoiser, ∇_u φ plays the part of EDM's raw network F.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from energydiff.errors import UserError
from energydiff.potentials.backbone import Backbone, Network, ScalarNetwork


class Potential(nn.Module, ABC):
    """φ(u, c, label), (B,), accumulated in u's precision even where F runs in bfloat16."""

    takes: type[Network] = Backbone

    def __init__(self, backbone: Network) -> None:
        super().__init__()
        if not isinstance(backbone, self.takes):
            kinds = {Backbone: "a vector field", ScalarNetwork: "a scalar"}
            kind = next((k for c, k in kinds.items() if isinstance(backbone, c)), "input-convex")
            raise UserError(
                f"{type(backbone).__name__} is {kind}: parametrization scalar is for a scalar,"
                " convex for InputConvex, every other one for a vector field."
            )
        self.backbone = backbone

    @abstractmethod
    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        """Shapes as in :meth:`Backbone.forward`; (B,)."""

    def value_and_grads(
        self, u: Tensor, c: Tensor, label: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """φ (B,), ∇φ like u, and ∂φ/∂c (B,); with a graph where gradients are enabled."""
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            u = u if keep and u.requires_grad else u.detach().requires_grad_()
            # One value per sample, so that each has its own derivative.
            c = c.contiguous() if keep and c.requires_grad else c.detach().clone().requires_grad_()
            phi = self(u, c, label)
            to_u, to_c = torch.autograd.grad(phi.sum(), (u, c), create_graph=keep)
        return phi if keep else phi.detach(), to_u, to_c


class InnerProduct(Potential):
    """φ = ½⟨u, F(u)⟩: the default, and the best of those measured on digits."""

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return 0.5 * (u * self.backbone(u, c, label).to(u.dtype)).flatten(1).sum(1)


class SummedOutput(Potential):
    """φ = Σ F(u): the sum of the output map."""

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return self.backbone(u, c, label).to(u.dtype).flatten(1).sum(1)


class ScalarOutput(Potential):
    """φ = the network itself, with its analytic gradient."""

    takes = ScalarNetwork
    backbone: ScalarNetwork

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return self.backbone(u, c, label).to(u.dtype)

    def value_and_grad(self, u: Tensor, c: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """φ (B,) and ∇φ, like u."""
        phi, grad = self.backbone.value_and_grad(u, c, label)
        return phi.to(u.dtype), grad.to(u.dtype)

    def value_and_grads(
        self, u: Tensor, c: Tensor, label: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        phi, to_u, to_c = self.backbone.value_and_grads(u, c, label)
        return phi.to(u.dtype), to_u.to(u.dtype), to_c.to(u.dtype)
