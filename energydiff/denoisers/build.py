"""One name for every kind of model that a network can be made into."""

from energydiff.denoisers.blind import BlindEnergy
from energydiff.denoisers.description import NATURAL, UNCONSTRAINED
from energydiff.denoisers.natural import NaturalEnergy
from energydiff.denoisers.preconditioned import EnergyDenoiser, UnconstrainedDenoiser
from energydiff.energies import NoiseRange
from energydiff.errors import UserError
from energydiff.potentials import Backbone, Network
from energydiff.potentials.potential import find_potential


def build_denoiser(
    backbone: Network,
    sigma_data: float,
    parametrization: str = "inner_product",
    compile: bool = False,
    noise: NoiseRange | None = None,
) -> EnergyDenoiser | UnconstrainedDenoiser | NaturalEnergy | BlindEnergy:
    """An energy of a network, or its unconstrained baseline.

    Args:
        backbone: a ``Backbone``; for ``scalar`` a ``ScalarNetwork``, for ``convex`` an
            ``InputConvex``, for ``natural`` a ``NaturalNetwork``.
        parametrization: ``inner_product``, ``sum``, ``scalar``, ``convex``, ``natural``,
            ``unconstrained``, the noise-blind ``dot``, ``squared_norm`` and ``coercive``, or a
            ``Potential`` of your own by its import path.
        sigma_data: σ_d, RMS of the data; a noise-blind energy has no use for it.
        compile: an energy and its derivatives, or the baseline's answer, run as one compiled
            function (``torch.compile``), checked against the eager one on first use.
        noise: the noise levels it is made for.
    """
    model: EnergyDenoiser | UnconstrainedDenoiser | NaturalEnergy | BlindEnergy
    no_potential = parametrization in (NATURAL, UNCONSTRAINED)
    kind = None if no_potential else find_potential(parametrization)
    if parametrization == NATURAL:
        model = NaturalEnergy(backbone, sigma_data)
    elif kind is not None and kind.noise_blind:
        model = BlindEnergy(kind.of(backbone, sigma_data))
    elif kind is not None:
        model = EnergyDenoiser(kind.of(backbone, sigma_data), sigma_data)
    elif isinstance(backbone, Backbone):
        model = UnconstrainedDenoiser(backbone, sigma_data)
    else:
        raise UserError(
            f"{type(backbone).__name__} is a scalar: it has no unconstrained form; train"
            " TokenNetwork or Transformer as its baseline."
        )
    model.noise, model.compiler = noise, "inductor" if compile else None
    return model
