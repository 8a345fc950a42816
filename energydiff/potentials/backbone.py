"""What every network of u, c and a label has in common: its config and its conditioning."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from energydiff.errors import UserError
from energydiff.registry import Configured


class Network(Configured, nn.Module, ABC):
    """A network of unit-variance samples u of one fixed shape, twice differentiable in u.

    Attributes:
        shape: of one sample, (C, H, W) or (d,). ``num_classes``: class labels, 0 for none.
        config: the constructor's arguments, with which a saved model builds the network again.
    """

    shape: tuple[int, ...]
    num_classes: int


class Backbone(Network):
    """A vector field F(u, c, label) like u.

    No ReLU unless squared, and no output bias: under a summed head a bias is pure gauge and would
    never get a gradient.
    """

    @abstractmethod
    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        """F, like ``u`` (B, \\*shape). ``c`` = ¼ log σ, (B,). ``label`` (B,), −1 for unknown."""


class ScalarNetwork(Network):
    """A scalar φ(u, c, label) by its construction, with its own gradient in u.

    Attributes:
        sigma_data: σ_d of the denoiser that it is the potential of, which tells it.
    """

    sigma_data: float = 1.0

    @abstractmethod
    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        """φ, (B,). Arguments as in :meth:`Backbone.forward`."""

    @abstractmethod
    def value_and_grad(
        self, u: Tensor, c: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """φ (B,) and ∇φ (like u), both made of differentiable operations: training goes through
        them by one ordinary backward."""

    def parts(self) -> Iterable[tuple[nn.Module, Sequence[str]]]:
        """Modules inside, none within another, that use their weights only while one of the methods
        named, or ``forward``, runs: these weights need not be at hand at other times."""
        return ()

    def grad(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        """∇φ, as above; to be written where φ itself can be left out."""
        return self.value_and_grad(u, c, label)[1]

    @abstractmethod
    def value_and_grads(
        self, u: Tensor, c: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """φ, ∇φ and ∂φ/∂c, (B,), as above."""


class Conditioning(nn.Module):
    """Embeds c = ¼ log σ and an optional class label as one vector (B, width) or (1, width).

    The noise features are sines and cosines of c, so ∂E/∂σ exists everywhere: a table of fixed
    noise levels would have none. The last row of the label table means "unknown".
    """

    frequencies: Tensor

    def __init__(self, width: int, num_classes: int = 0, frequencies: int = 16) -> None:
        super().__init__()
        # c spans about two units between σ = 0.01 and 80: an eighth to four periods per unit.
        self.register_buffer(
            "frequencies",
            2 * math.pi * torch.logspace(-3, 2, frequencies, base=2),
            persistent=False,
        )
        self.noise = nn.Sequential(
            nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.label = nn.Embedding(num_classes + 1, width) if num_classes else None

    def forward(self, c: Tensor, label: Tensor | None) -> Tensor:
        if label is None and c.stride(0) == 0:
            c = c[:1]  # one noise level for all samples: embed it once
        phase = c[:, None] * self.frequencies
        embedding: Tensor = self.noise(torch.cat([phase.cos(), phase.sin()], dim=1))
        if self.label is not None:
            unknown = self.label.num_embeddings - 1
            if label is None:
                label = torch.full(c.shape, unknown, device=c.device)
            embedding = embedding + self.label(torch.where(label < 0, unknown, label))
        return embedding


def require_divisible(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """``UserError`` unless ``divisor`` divides ``value``."""
    if value % divisor:
        raise UserError(f"{name} {value} must be divisible by {divisor_name} {divisor}.")


def require_image(network: str, shape: tuple[int, ...]) -> None:
    """``UserError`` unless the shape is (C, H, W)."""
    if len(shape) != 3:
        raise UserError(
            f"{network} takes images (C, H, W), but the data has shape {tuple(shape)};"
            " use the MLP backbone for vectors."
        )
