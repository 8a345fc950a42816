"""Learned networks: vector backbones F and the scalar potentials φ made of them."""

from energydiff.potentials.backbone import Backbone, Network, ScalarNetwork
from energydiff.potentials.blind import Coercive, NegativeInnerProduct, SquaredNorm
from energydiff.potentials.check import require_smooth
from energydiff.potentials.discrete_time import DiscreteTime
from energydiff.potentials.energy_block import EnergyTransformerBlock
from energydiff.potentials.energy_transformer import EnergyTransformer
from energydiff.potentials.energy_unet import EnergyUNet
from energydiff.potentials.input_convex import ConvexDenoiser, InputConvex
from energydiff.potentials.mlp import MLP
from energydiff.potentials.natural_convex import (
    NaturalConvex,
    NaturalConvexConv,
    NaturalNetwork,
)
from energydiff.potentials.potential import (
    InnerProduct,
    Potential,
    ScalarOutput,
    SummedOutput,
    parametrizations,
)
from energydiff.potentials.published_energy_transformer import PublishedEnergyTransformer
from energydiff.potentials.token_network import TokenNetwork
from energydiff.potentials.transformer import Transformer
from energydiff.potentials.unet import UNet
from energydiff.potentials.wrapped import Wrapped

__all__ = [
    "MLP",
    "Backbone",
    "Coercive",
    "ConvexDenoiser",
    "DiscreteTime",
    "EnergyTransformer",
    "EnergyTransformerBlock",
    "EnergyUNet",
    "InnerProduct",
    "InputConvex",
    "NaturalConvex",
    "NaturalConvexConv",
    "NaturalNetwork",
    "NegativeInnerProduct",
    "Network",
    "Potential",
    "PublishedEnergyTransformer",
    "ScalarNetwork",
    "ScalarOutput",
    "SquaredNorm",
    "SummedOutput",
    "TokenNetwork",
    "Transformer",
    "UNet",
    "Wrapped",
    "parametrizations",
    "require_smooth",
]
