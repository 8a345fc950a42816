"""What is measured: energies, each beside an unconstrained network of about as many operations."""

from collections.abc import Callable
from dataclasses import dataclass

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


TRANSFORMER_LIMITS = Limits(2.1, 2.0)  # of ½⟨u, F⟩, as the next
UNET_LIMITS = Limits(2.3, 2.0)
ENERGY_UNET_LIMITS = Limits(1.10, 1.10)
ENERGY_TRANSFORMER_LIMITS = Limits(1.0, 1.0)


def energy_unet(side: int, images: int, limits: Limits, peers: bool = False) -> Case:
    """Three levels of 16, 32 and 32 channels on square images, attention at the coarsest."""
    widths, attention = (1, 2, 2), (side // 4,)
    return Case(
        f"energy unet {side}x{side}",
        lambda: UNet((1, side, side), 16, widths, 1, attention),
        images,
        limits,
        lambda: EnergyUNet((1, side, side), 16, widths, 2, attention),
        peers,
    )


def energy_transformer(tokens: int, images: int, limits: Limits, peers: bool = False) -> Case:
    """The default trunk and readout, on a square of patches of 2×2."""
    side = 2 * round(tokens**0.5)
    return Case(
        f"energy transformer {tokens} tokens",
        lambda: Transformer((1, side, side), width=64, depth=4),
        images,
        limits,
        lambda: EnergyTransformer((1, side, side), width=64),
        peers,
    )


def published_block(side: int, width: int, limits: Limits) -> Case:
    """One block of the Energy Transformer as published beside one of a diffusion transformer."""
    return Case(
        f"published block {side**2 // 4} tokens",
        lambda: Transformer((1, side, side), width=width, depth=1),
        1,
        limits,
        lambda: PublishedEnergyTransformer((1, side, side), width=width, depth=1),
        peers=True,
    )


CASES = [
    Case(
        "mlp 8x8",
        lambda: MLP((1, 8, 8), width=256, depth=3),
        64,
        TRANSFORMER_LIMITS,
        sampled_images=64,
    ),
    Case(
        "mlp 28x28",
        lambda: MLP((1, 28, 28), width=512, depth=4),
        128,
        TRANSFORMER_LIMITS,
        peers=True,
    ),
    Case(
        "transformer 8x8",
        lambda: Transformer((1, 8, 8), width=128, depth=4),
        64,
        TRANSFORMER_LIMITS,
        sampled_images=16,
    ),
    Case(
        "transformer 28x28",
        lambda: Transformer((1, 28, 28), patch_size=4, width=128, depth=4),
        32,
        TRANSFORMER_LIMITS,
        peers=True,
    ),
    Case(
        "unet 8x8",
        lambda: UNet((1, 8, 8), 32, (1, 2), 1, (4,)),
        64,
        UNET_LIMITS,
        sampled_images=8,
    ),
    Case(
        "unet 28x28",
        lambda: UNet((1, 28, 28), 32, (1, 2), 1, (7,)),
        16,
        UNET_LIMITS,
        peers=True,
    ),
    energy_unet(8, 256, ENERGY_UNET_LIMITS),
    energy_unet(16, 64, ENERGY_UNET_LIMITS),
    energy_unet(28, 64, ENERGY_UNET_LIMITS, peers=True),
    energy_unet(32, 16, ENERGY_UNET_LIMITS),
    energy_unet(64, 4, ENERGY_UNET_LIMITS),
    # With more tokens the baseline's four attentions take ever more operations than the energy.
    energy_transformer(64, 64, Limits()),
    energy_transformer(256, 16, ENERGY_TRANSFORMER_LIMITS, peers=True),
    energy_transformer(1024, 4, Limits()),
    energy_transformer(4096, 1, Limits()),
    published_block(128, 256, Limits(step_of_torchebm=0.45, step_mebibytes=200)),
]
QUICK_CASES = [
    Case(
        "mlp 8x8",
        lambda: MLP((1, 8, 8), width=128, depth=2),
        8,
        TRANSFORMER_LIMITS,
        peers=True,
        sampled_images=4,
    ),
    Case(
        "transformer 8x8",
        lambda: Transformer((1, 8, 8), width=32, depth=1, heads=2),
        8,
        TRANSFORMER_LIMITS,
    ),
    Case("unet 8x8", lambda: UNet((1, 8, 8), 8, (1, 2), 1, (4,)), 4, UNET_LIMITS),
    energy_unet(8, 4, ENERGY_UNET_LIMITS),
    energy_transformer(16, 4, ENERGY_TRANSFORMER_LIMITS),
    published_block(8, 32, Limits(step_of_torchebm=0.45, step_mebibytes=200)),
]


def build(case: Case, parametrization: str, device: str, compile: bool = False) -> Denoiser:
    """A model with no layer left at zero, as if some training had happened."""
    torch.manual_seed(0)
    network: Network = case.baseline()
    if case.energy is not None and parametrization == case.parametrization:
        network = case.energy()
    model = build_denoiser(network, SIGMA_DATA, parametrization, compile)
    return without_zeros(model).to(device)
