"""Log-partition functions that are learned: jointly convex in (x/T, 1/T) by construction.

The networks here are densities of which the convolution with the noise is known: mixtures and
products of Gaussians on the line, in a tree. −V/T = log ∫ exp(−‖x − y‖²/2T) p0(y) dy is then a
log-sum-exp of sums of log-sum-exps, and exact: everything that holds of the energy of real data
holds of theirs.
"""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energydiff.errors import UserError
from energydiff.potentials.backbone import Network, require_image

SPAN = 1.6  # of the first levels, in units of σ_d: where data lie
LEAST_WEIGHT = 1e-12  # of a component, so that none is lost to rounding


class NaturalNetwork(Network):
    """V = ½‖x‖² − T·K(x/T, 1/T) of a K that is jointly convex with K(0, 0) = 0; in units of σ_d.

    Attributes:
        density: K is the log-partition function of a density, for all weights.
    """

    density: ClassVar[bool] = False

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """V, (B,), in units of σ_d². ``x`` (B, \\*shape), ``t`` = T (B,), ``label`` (B,), −1 for
        unknown."""


class Mixing(nn.Module):
    """log Σ_j w_kj exp h_j, each row of w a distribution: K mixtures of J at every place.

    Args:
        places: number of them, each with weights of its own.
        inputs, outputs: J and K.
    """

    def __init__(self, places: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(places, outputs, inputs))

    def forward(self, h: Tensor) -> Tensor:
        """(…, J) to (…, K); the first axes are the places, or places that share weights follow."""
        places, outputs, inputs = self.logits.shape
        top = h.detach().amax(-1, keepdim=True)
        weight = (self.logits.softmax(2) + LEAST_WEIGHT) / (1 + LEAST_WEIGHT * inputs)
        mixed = torch.bmm((h - top).exp().reshape(places, -1, inputs), weight.mT)
        return mixed.view(*h.shape[:-1], outputs).log() + top


class NaturalConvex(NaturalNetwork):
    """A tree of mixtures: a hidden state for every pair of neighbours, then of pairs, to the root.

    A leaf is a scalar of x with its levels N(v, λ). Below a hidden state k of a pair lie two
    neighbours, independent given k, each a mixture over its own states; the root mixes states of
    the whole. In the field: a latent tree model, or hierarchical tensorial mixture (Sharir et al.
    2016), or probabilistic circuit (Peharz et al. 2020). Noise turns λ into λ + T at the leaves
    and leaves the rest as it is.

    Axes are halved in turn, the longest first, the channels of an image before its sides.

    Args:
        shape: shape of one sample.
        states: K, of each hidden variable.
        levels: components of each scalar.
        num_classes: class labels, 0 for none; each has weights of its own at the root.
    """

    density = True
    shared: ClassVar[bool] = False  # between places, but for which of a pair it is

    def __init__(
        self,
        shape: tuple[int, ...],
        states: int = 64,
        levels: int = 24,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        for name, size in {"states": states, "levels": levels}.items():
            if size < 1:
                raise UserError(f"{name} is {size}; it must be at least 1.")
        self.shape, self.num_classes = tuple(shape), num_classes
        places = [*self.shape[:1], 1, 1] if self.shared else list(self.shape)
        self.value = nn.Parameter(torch.linspace(-SPAN, SPAN, levels).repeat(*places, 1))
        variance = torch.tensor(0.5 * 2 * SPAN / levels).square()
        self.raw_variance = nn.Parameter(variance.expm1().log().expand_as(self.value).clone())
        self.mixings = nn.ModuleList()
        self.axes: list[int] = []
        sides, inputs = list(self.shape), levels
        while max(sides) > 1:
            axis = 0 if sides[0] > 1 else sides.index(max(sides))
            sides[axis] = math.ceil(sides[axis] / 2)
            self.mixings.append(Mixing(2 if self.shared else 2 * math.prod(sides), inputs, states))
            self.axes.append(axis)
            inputs = states
        self.root = nn.Parameter(torch.zeros(num_classes + 1, inputs))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        x = x.movedim(0, -1)[..., None]  # (*shape, B, 1), and h has (…, B, states)
        variance, t = F.softplus(self.raw_variance)[..., None, :], t[:, None]
        h = -(x - self.value[..., None, :]).square() / (2 * (variance + t))
        h = h - 0.5 * torch.log1p(variance / t)
        for axis, mixing in zip(self.axes, self.mixings, strict=True):
            if h.shape[axis] % 2:  # the last has nobody beside it: log 1
                h = torch.cat([h, torch.zeros_like(h.narrow(axis, 0, 1))], axis)
            h = mixing(h.unflatten(axis, (-1, 2)).movedim(axis + 1, 0)).sum(0)
        unknown = len(self.root) - 1
        chosen = torch.where(label < 0, unknown, label) if label is not None else unknown
        h = h.flatten(0, -2) + self.root.log_softmax(1)[chosen]
        return -t[:, 0] * h.logsumexp(1)


class NaturalConvexConv(NaturalConvex):
    """The same of images, with weights that are shared between places: convolutions of stride 2.

    Arguments as of :class:`NaturalConvex`; the shape is (C, H, W).
    """

    shared = True

    def __init__(
        self,
        shape: tuple[int, ...],
        states: int = 128,
        levels: int = 24,
        num_classes: int = 0,
    ) -> None:
        require_image(type(self).__name__, shape)
        super().__init__(shape, states, levels, num_classes)
