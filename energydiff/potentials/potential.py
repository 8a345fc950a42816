"""A scalar potential φ(u, c, label) from a network.

With the preconditioning of the energy denoiser, ∇_u φ plays the part of EDM's raw network F.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

from torch import Tensor, nn

from energydiff.derivatives import value_and_derivatives
from energydiff.errors import UserError
from energydiff.potentials.backbone import Backbone, Network, ScalarNetwork
from energydiff.registry import class_name, find, known


class Potential(nn.Module, ABC):
    """φ(u, c, label), (B,), accumulated in u's precision even where F runs in bfloat16.

    Attributes:
        parametrization: what configurations call it; one of your own goes by its import path.
        takes: the networks it is made of.
        noise_blind: it is a whole energy H(x), asked at c = 0.
        convex_denoiser: the denoiser made of it is the gradient of a convex function.
    """

    parametrization: ClassVar[str] = ""
    takes: ClassVar[type[Network]] = Backbone
    noise_blind: ClassVar[bool] = False
    convex_denoiser: ClassVar[bool] = False

    def __init__(self, backbone: Network) -> None:
        super().__init__()
        if not isinstance(backbone, self.takes):
            kinds = {Backbone: "a vector field", ScalarNetwork: "a scalar"}
            kind = next((k for c, k in kinds.items() if isinstance(backbone, c)), "convex")
            raise UserError(
                f"{type(backbone).__name__} is {kind}: parametrization scalar is for a scalar,"
                " convex for InputConvex, natural for NaturalConvex, every other one for a vector"
                " field."
            )
        self.backbone = backbone

    @classmethod
    def of(cls, backbone: Network, sigma_data: float) -> Self:
        """The potential of a denoiser of data with the RMS σ_d."""
        return cls(backbone)

    @abstractmethod
    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        """Shapes as in :meth:`Backbone.forward`; (B,)."""

    def value_and_grads(
        self, u: Tensor, c: Tensor, label: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """φ (B,), ∇φ like u, and ∂φ/∂c (B,); with a graph where gradients are enabled."""
        # One value of c per sample, so that each has its own derivative.
        phi, to_u, to_c = value_and_derivatives(lambda u, c: self(u, c, label), u, c.contiguous())
        return phi, to_u, to_c


def parametrizations() -> dict[str, type[Potential]]:
    """This package's potentials by their parametrizations."""
    return {cls.parametrization: cls for cls in known(Potential).values()}


def find_potential(parametrization: str) -> type[Potential]:
    """The potential of a parametrization, or of an import path.

    Raises:
        UserError: there is none, or its module has not been imported.
    """
    own = parametrizations()
    if parametrization in own:
        return own[parametrization]
    if "." not in parametrization:
        raise UserError(
            f"parametrization is {parametrization!r}; choose {', '.join(own)},"
            " natural or unconstrained."
        )
    return find(Potential, parametrization, "the parametrization")


def name_of(potential: Potential) -> str:
    """The inverse of :func:`find_potential`."""
    kind = type(potential)
    own = (name for name, cls in parametrizations().items() if cls is kind)
    return next(own, None) or class_name(kind)


class InnerProduct(Potential):
    """φ = ½⟨u, F(u)⟩: the default, and the best of those measured on digits."""

    parametrization = "inner_product"

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return 0.5 * (u * self.backbone(u, c, label).to(u.dtype)).flatten(1).sum(1)


class SummedOutput(Potential):
    """φ = Σ F(u): the sum of the output map."""

    parametrization = "sum"

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return self.backbone(u, c, label).to(u.dtype).flatten(1).sum(1)


class ScalarOutput(Potential):
    """φ = the network itself, with its analytic gradient."""

    parametrization = "scalar"
    takes = ScalarNetwork
    backbone: ScalarNetwork

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return self.backbone(u, c, label).to(u.dtype)

    def value_and_grad(self, u: Tensor, c: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """φ (B,) and ∇φ, like u."""
        phi, grad = self.backbone.value_and_grad(u, c, label)
        return phi.to(u.dtype), grad.to(u.dtype)

    def grad(self, u: Tensor, c: Tensor, label: Tensor | None) -> Tensor:
        """∇φ, like u, where φ is not asked for."""
        return self.backbone.grad(u, c, label).to(u.dtype)

    def value_and_grads(
        self, u: Tensor, c: Tensor, label: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        phi, to_u, to_c = self.backbone.value_and_grads(u, c, label)
        return phi.to(u.dtype), to_u.to(u.dtype), to_c.to(u.dtype)
