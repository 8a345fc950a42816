"""Learned networks: vector backbones F and the scalar potentials φ made of them."""

from energydiff.potentials.backbone import Backbone
from energydiff.potentials.mlp import MLP
from energydiff.potentials.potential import InnerProduct, Potential, SummedOutput
from energydiff.potentials.transformer import Transformer
from energydiff.potentials.unet import UNet

__all__ = ["MLP", "Backbone", "InnerProduct", "Potential", "SummedOutput", "Transformer", "UNet"]
