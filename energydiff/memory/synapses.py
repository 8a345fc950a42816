"""Synapses: energies that couple the activations of neuron layers.

A synapse is a module that takes one activation per layer it joins, each (B, \\*shape), and returns
an energy (B,). Its weights are parameters. Energies have the units of the layers' L.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dense(nn.Module):
    """E = −âᵀ W b̂ between two layers of any shape, flattened.

    Args:
        weight: W, (size of a, size of b).
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(weight))

    @classmethod
    def random(cls, a: int, b: int, generator: torch.Generator) -> "Dense":
        """W ~ N(0, 1/(a + b)), so that W has norm about 1."""
        return cls(torch.randn(a, b, generator=generator) / math.sqrt(a + b))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return -((a.flatten(1) @ self.weight) * b.flatten(1)).sum(1)


class Convolution(nn.Module):
    """E = −⟨ĥ, conv2d(v̂, W)⟩ between images v (C, H, W) and h (C', H', W').

    Args:
        weight: W, (C', C, k, k).
        stride, padding: of the convolution; they fix H' and W'.
    """

    def __init__(self, weight: Tensor, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(weight))
        self.stride, self.padding = stride, padding

    def forward(self, image: Tensor, hidden: Tensor) -> Tensor:
        response = F.conv2d(image, self.weight, stride=self.stride, padding=self.padding)
        if response.shape != hidden.shape:  # broadcasting would hide the mistake
            raise ValueError(f"this convolution makes {tuple(response.shape[1:])}")
        return -(response * hidden).flatten(1).sum(1)


class Function(nn.Module):
    """Any differentiable function of activations, each (B, \\*shape), that returns (B,)."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *activations: Tensor) -> Tensor:
        return self.function(*activations)
