"""Any ``nn.Module`` f(x, t[, label]) as a backbone F(u, c, label)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from energydiff.errors import UserError
from energydiff.potentials.backbone import Backbone
from energydiff.registry import find


class Wrapped(Backbone):
    """A module that is called f(u, t) or f(u, t, label) and returns a field like u.

    Its time is t = ``time_scale`` · c with c = ¼ log σ, about −1.2 to 1.1. Modules that embed a
    continuous time of order one take 1 (EDM's networks get c itself) or 4 (t = log σ); those that
    count steps to 1000 with sines and cosines (``diffusers``, DiT) take 250, which spreads the
    noise levels over some 500 of their steps, negative ones among them. A module that looks time
    up in a table has no ∂E/∂σ and will not do.

    Attention runs unfused: PyTorch's fused kernels have no second derivative. The answer may be a
    tensor, a tuple (its first item) or an object with ``.sample``.

    Args:
        shape: shape of one sample.
        network: a class of modules, or its import path where it has been imported.
        arguments: of its constructor: numbers, strings, lists, dictionaries.
        time_scale: t per unit of c.
        num_classes: class labels, 0 for none. The module gets labels 0 to num_classes, the last
            for an unknown class: it needs an embedding of num_classes + 1 rows.

    Raises:
        UserError: there is no such class, or its answer is not like u.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        network: type[nn.Module] | str,
        arguments: dict[str, Any] | None = None,
        time_scale: float = 1.0,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.num_classes, self.time_scale = tuple(shape), num_classes, time_scale
        if isinstance(network, str):
            network = find(nn.Module, network, "the network of Wrapped")
        self.network = network(**(arguments or {}))

    def time(self, c: Tensor) -> Tensor:
        """What the module is told of the noise, (B,)."""
        return self.time_scale * c

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        inputs = [u, self.time(c)]
        if self.num_classes:
            label = torch.full(c.shape, -1, device=u.device) if label is None else label
            inputs.append(torch.where(label < 0, self.num_classes, label))
        with sdpa_kernel(SDPBackend.MATH):
            answer = self.network(*inputs)
        answer = answer[0] if isinstance(answer, tuple) else getattr(answer, "sample", answer)
        if not isinstance(answer, Tensor) or answer.shape != u.shape:
            raise UserError(
                f"{type(self.network).__name__} answered"
                f" {tuple(getattr(answer, 'shape', ())) or type(answer).__name__} to samples"
                f" {tuple(u.shape)}; a backbone's field is like its samples."
            )
        return answer
