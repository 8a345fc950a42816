"""One name for every kind of model that a network can be made into."""

from typing import Literal

from energydiff.denoisers.blind import BlindEnergy
from energydiff.denoisers.preconditioned import EnergyDenoiser, UnconstrainedDenoiser
from energydiff.errors import UserError
from energydiff.potentials import (
    Backbone,
    Coercive,
    ConvexDenoiser,
    InnerProduct,
    NegativeInnerProduct,
    Network,
    Potential,
    ScalarOutput,
    SquaredNorm,
    SummedOutput,
)

Parametrization = Literal[
    "inner_product", "sum", "scalar", "convex", "unconstrained", "dot", "squared_norm", "coercive"
]
POTENTIALS: dict[str, type[Potential]] = {
    "inner_product": InnerProduct,
    "sum": SummedOutput,
    "scalar": ScalarOutput,
    "convex": ConvexDenoiser,
}
BLIND_POTENTIALS: dict[str, type[Potential]] = {
    "dot": NegativeInnerProduct,
    "squared_norm": SquaredNorm,
    "coercive": Coercive,
}


def build_denoiser(
    backbone: Network,
    sigma_data: float,
    parametrization: Parametrization = "inner_product",
    compile: bool = False,
) -> EnergyDenoiser | UnconstrainedDenoiser | BlindEnergy:
    """An energy of a network, or its unconstrained baseline.

    Args:
        backbone: a ``Backbone``; for ``scalar`` a ``ScalarNetwork``, for ``convex`` an
            ``InputConvex``.
        parametrization: ``dot``, ``squared_norm`` and ``coercive`` are noise-blind.
        sigma_data: σ_d, RMS of the data; a noise-blind energy has no use for it.
        compile: compute energy and gradient in one compiled function.
    """
    blind = parametrization in BLIND_POTENTIALS
    if compile and (blind or parametrization in ("scalar", "unconstrained")):
        raise UserError(
            f"compile joins a noise-aware energy and its autograd gradient: {parametrization} has"
            " no energy, is noise-blind or has its gradient already written out."
        )
    if blind:
        return BlindEnergy(BLIND_POTENTIALS[parametrization](backbone))
    if parametrization == "unconstrained":
        if not isinstance(backbone, Backbone):
            raise UserError(
                f"{type(backbone).__name__} is a scalar: it has no unconstrained form; train"
                " TokenNetwork or Transformer as its baseline."
            )
        return UnconstrainedDenoiser(backbone, sigma_data)
    if parametrization not in POTENTIALS:
        raise UserError(
            f"parametrization is {parametrization!r}; choose"
            f" {', '.join([*POTENTIALS, *BLIND_POTENTIALS])} or unconstrained."
        )
    if parametrization == "convex":
        return EnergyDenoiser(ConvexDenoiser(backbone, sigma_data), sigma_data, compile)
    return EnergyDenoiser(POTENTIALS[parametrization](backbone), sigma_data, compile)
