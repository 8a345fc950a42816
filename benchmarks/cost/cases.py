"""What is measured: energies, each beside an unconstrained network of about as many operations."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.cost.work import without_zeros
from energydiff.denoisers import build_denoiser
from energydiff.energies import Denoiser
from energydiff.potentials import (
    MLP,
    Backbone,
    EnergyTransformer,
    EnergyUNet,
    Network,
    PublishedEnergyTransformer,
    ScalarNetwork,
    Transformer,
    UNet,
)

SIGMA_DATA = 0.5


@dataclass(frozen=True)
class Limits:
    """What is aimed at; ``None`` where nothing is.

    Attributes:
        step: time of a training step in units of the baseline's. ``call``: of a denoiser call.
        step_of_torchebm: time of a training step in units of torchebm's on the same network.
        step_mebibytes: peak memory of a training step.
    """

    step: float | None = None
    call: float | None = None
    step_of_torchebm: float | None = None
    step_mebibytes: float | None = None


@dataclass(frozen=True)
class Case:
    """A baseline and an energy at one size.

    Attributes:
        baseline: the unconstrained network.
        energy: the energy's network; ½⟨u, F⟩ on the baseline's where there is none.
        peers: whether the same energy is measured as other packages have it differentiated.
        sampled_images: batch in which sampling is measured too; 0 for not at all.
    """

    name: str
    baseline: Callable[[], Backbone]
    images: int
    limits: Limits
    energy: Callable[[], ScalarNetwork] | None = None
    peers: bool = False
    sampled_images: int = 0

    @property
    def parametrization(self) -> str:
        """Of the energy."""
        return "inner_product" if self.energy is None else "scalar"


def inner_product(
    network: type[Backbone],
    side: int,
    images: int,
    peers: bool = False,
    sampled_images: int = 0,
    **sizes: Any,
) -> Case:
    """½⟨u, F⟩ of a network on square images beside the network itself."""
    return Case(
        f"{network.__name__.lower()} {side}x{side}",
        lambda: network((1, side, side), **sizes),
        images,
        Limits(2.3 if network is UNet else 2.1, 2.0),
        peers=peers,
        sampled_images=sampled_images,
    )


def energy_unet(side: int, images: int, peers: bool = False) -> Case:
    """Three levels of 16, 32 and 32 channels on square images, attention at the coarsest."""
    widths, attention = (1, 2, 2), (side // 4,)
    return Case(
        f"energy unet {side}x{side}",
        lambda: UNet((1, side, side), 16, widths, 1, attention),
        images,
        Limits(1.10, 1.10),
        lambda: EnergyUNet((1, side, side), 16, widths, 2, attention),
        peers,
    )


def energy_transformer(
    tokens: int, images: int, limits: Limits | None = None, peers: bool = False
) -> Case:
    """The default trunk and readout, on a square of patches of 2×2."""
    side = 2 * math.isqrt(tokens)
    return Case(
        f"energy transformer {tokens} tokens",
        lambda: Transformer((1, side, side), width=64, depth=4),
        images,
        limits or Limits(),
        lambda: EnergyTransformer((1, side, side), width=64),
        peers,
    )


def published_block(side: int, width: int) -> Case:
    """One block of the Energy Transformer as published beside one of a diffusion transformer."""
    return Case(
        f"published block {side**2 // 4} tokens",
        lambda: Transformer((1, side, side), width=width, depth=1),
        1,
        Limits(step_of_torchebm=0.45, step_mebibytes=200),
        lambda: PublishedEnergyTransformer((1, side, side), width=width, depth=1),
        peers=True,
    )


NO_DEARER = Limits(1.0, 1.0)
UNET_SIZES = {"channels": 32, "multipliers": (1, 2), "blocks": 1}
CASES = [
    inner_product(MLP, 8, 64, sampled_images=64, width=256, depth=3),
    inner_product(MLP, 28, 128, peers=True, width=512, depth=4),
    inner_product(Transformer, 8, 64, sampled_images=16, width=128, depth=4),
    inner_product(Transformer, 28, 32, peers=True, patch_size=4, width=128, depth=4),
    inner_product(UNet, 8, 64, sampled_images=8, **UNET_SIZES, attention_resolutions=(4,)),
    inner_product(UNet, 28, 16, peers=True, **UNET_SIZES, attention_resolutions=(7,)),
    energy_unet(8, 256),
    energy_unet(16, 64),
    energy_unet(28, 64, peers=True),
    energy_unet(32, 16),
    energy_unet(64, 4),
    # With more tokens the baseline's four attentions take ever more operations than the energy.
    energy_transformer(64, 64),
    energy_transformer(256, 16, NO_DEARER, peers=True),
    energy_transformer(1024, 4),
    energy_transformer(4096, 1),
    published_block(128, 256),
]
QUICK_CASES = [
    inner_product(MLP, 8, 8, peers=True, sampled_images=4, width=128, depth=2),
    inner_product(Transformer, 8, 8, width=32, depth=1, heads=2),
    inner_product(UNet, 8, 4, channels=8, multipliers=(1, 2), blocks=1, attention_resolutions=(4,)),
    energy_unet(8, 4),
    energy_transformer(16, 4, NO_DEARER),
    published_block(8, 32),
]


def build(case: Case, parametrization: str, device: str, compile: bool = False) -> Denoiser:
    """A model with no layer left at zero, as if some training had happened."""
    torch.manual_seed(0)
    network: Network = case.baseline()
    if case.energy is not None and parametrization == case.parametrization:
        network = case.energy()
    model = build_denoiser(network, SIGMA_DATA, parametrization, compile)
    return without_zeros(model).to(device)
