"""Log-partition functions that are learned: jointly convex in (x/T, 1/T) by construction."""

import math
from abc import abstractmethod

from torch import Tensor, nn

from energydiff.errors import UserError
from energydiff.potentials.backbone import Network
from energydiff.potentials.natural_layers import Levels, NonNegative, Quadratics, Tempered

QUADRATICS, UNITS = 2.3, 0.3  # totals of the weights with which a layer takes what is convex
CONTEXT = 0.05  # the same of the levels, small so that D starts near x at low noise


class NaturalNetwork(Network):
    """V = ½‖x‖² − ψ of ψ(x, T) = T·[K(x/T, 1/T) − K(0, 0)], K jointly convex; all in units of σ_d.

    A subclass writes :meth:`perspective` with the layers of
    :mod:`energydiff.potentials.natural_layers`.
    """

    @abstractmethod
    def perspective(self, x: Tensor, t: Tensor, w: float, label: Tensor | None) -> Tensor:
        """T·K(x/T, w/T) − ½‖x‖²/w, (B,), the former homogeneous in (x, T, w), jointly convex.

        Args:
            x: (B, \\*shape).
            w: 1, or 0 where x is 0 and so is the last term.
            t: T, (B,).
            label: (B,), −1 for unknown, or ``None``.
        """

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """V, (B,), in units of σ_d². Arguments as of :meth:`perspective`."""
        count = 1 if label is None else len(x)
        origin = self.perspective(x.new_zeros(count, *self.shape), t.new_ones(count), 0.0, label)
        return t * origin - self.perspective(x, t, 1.0, label)


class NaturalConvex(NaturalNetwork):
    """Quadratics over linear, layers of tempered softplus, and mixtures over levels.

    f = :class:`~energydiff.potentials.natural_layers.Quadratics` of x,
    z_{k+1} = t·softplus((A x + b + cT + W f + P z_k)/t) with W, P ≥ 0 and t = T + τ, and
    T·K = Σ_i T log Σ_k exp(y_ik/T) over levels of every scalar, whose y takes f and z_L with
    weights ≥ 0: an input-convex network (Amos et al. 2017) in (x/T, 1/T), and a hierarchical
    log-sum-exp memory whose temperature is the noise.

    Args:
        shape: shape of one sample; flattened inside.
        width: units of each layer.
        depth: number of layers.
        quadratics: how many.
        levels: components of each scalar.
        num_classes: class labels, 0 for none.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 128,
        depth: int = 2,
        quadratics: int = 128,
        levels: int = 8,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        require_positive(width=width, depth=depth, quadratics=quadratics, levels=levels)
        self.shape, self.num_classes = tuple(shape), num_classes
        dim = math.prod(self.shape)
        self.quadratics = Quadratics(dim, quadratics)
        self.layers = nn.ModuleList(Tempered(dim, width, num_classes) for _ in range(depth))
        self.from_quadratics = nn.ModuleList(
            NonNegative(quadratics, width, QUADRATICS) for _ in range(depth)
        )
        self.between = nn.ModuleList(NonNegative(width, width, UNITS) for _ in range(depth - 1))
        self.context = nn.ModuleList(
            NonNegative(size, dim * levels, CONTEXT) for size in (quadratics, width)
        )
        self.levels = Levels(dim, levels, num_classes, ())

    def perspective(self, x: Tensor, t: Tensor, w: float, label: Tensor | None) -> Tensor:
        x, t = x.flatten(1), t[:, None]
        quadratics = self.quadratics(x, t, w)
        z: Tensor | None = None
        for k, (layer, mix) in enumerate(zip(self.layers, self.from_quadratics, strict=True)):
            convex = mix(quadratics)
            if z is not None:
                convex = convex + self.between[k - 1](z)
            z = layer(x, t, w, label, convex)
        of_quadratics, of_units = self.context
        return self.levels(x, t, w, label, of_quadratics(quadratics) + of_units(z))


def require_positive(**sizes: int) -> None:
    """``UserError`` unless every size is at least 1."""
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name} is {size}; it must be at least 1.")
