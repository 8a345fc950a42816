"""How models made of a network are described: by parametrization, σ_d and the network."""

from collections.abc import Mapping
from typing import Any

from energydiff.energies import Denoiser
from energydiff.potentials import Network
from energydiff.registry import build, class_name, describe

UNCONSTRAINED = "unconstrained"
NATURAL = "natural"


def describe_learned(
    model: Denoiser, parametrization: str, network: Network, sigma_data: float | None = None
) -> dict[str, Any]:
    """The model as plain data; a noise-blind one has no σ_d."""
    return {
        "class": class_name(type(model)),
        "parametrization": parametrization,
        **({} if sigma_data is None else {"sigma_data": sigma_data}),
        "backbone": describe(network),
    }


def network_of(model: Denoiser) -> Network | None:
    """The network that a learned model is made of; ``None`` for a closed form."""
    return next((m for m in model.modules() if isinstance(m, Network)), None)


def described_network(arguments: Mapping[str, Any], what: str) -> Network:
    """A new network as described."""
    return build(Network, arguments["backbone"], f"the network of {what}")
