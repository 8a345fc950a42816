"""Networks that are right in one process, and wrong where their weights are shared out."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from energydiff.derivatives import value_and_derivatives
from energydiff.potentials import Backbone, ScalarNetwork


class Hoarding(Backbone):
    """Keeps its weight also where no module knows of it, and uses that."""

    def __init__(self, shape: tuple[int, ...], num_classes: int = 0) -> None:
        super().__init__()
        self.shape, self.num_classes = tuple(shape), num_classes
        size = math.prod(shape)
        self.mix, self.out = nn.Linear(size, size), nn.Linear(size, size, bias=False)
        self.hoard = [self.mix.weight]

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        mixed = F.linear(u.flatten(1), self.hoard[0], self.mix.bias)
        return self.out(F.silu(mixed + c[:, None])).view_as(u)


class Straying(ScalarNetwork):
    """Names a part whose weights are at hand while it runs alone, and uses them at other times."""

    def __init__(self, shape: tuple[int, ...], num_classes: int = 0) -> None:
        super().__init__()
        self.shape, self.num_classes = tuple(shape), num_classes
        self.mix = nn.Linear(math.prod(shape), 8)

    def parts(self) -> Iterable[tuple[nn.Module, Sequence[str]]]:
        return [(self.mix, ())]

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        mixed = F.linear(u.flatten(1), self.mix.weight, self.mix.bias)
        return F.silu(mixed + c[:, None]).square().sum(1)

    def value_and_grad(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Any:
        return value_and_derivatives(lambda u: self(u, c, label), u)

    def value_and_grads(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Any:
        return value_and_derivatives(lambda u, c: self(u, c, label), u, c.contiguous())
