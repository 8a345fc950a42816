"""The convolutional form of :mod:`energydiff.potentials.natural_convex`, over several scales."""

import torch.nn.functional as F
from torch import Tensor, nn

from energydiff.errors import UserError
from energydiff.potentials.backbone import require_image
from energydiff.potentials.natural_convex import (
    CONTEXT,
    QUADRATICS,
    UNITS,
    NaturalNetwork,
    require_positive,
)
from energydiff.potentials.natural_layers import Levels, NonNegative, Quadratics, Tempered


class NaturalConvexConv(NaturalNetwork):
    """An hourglass of tempered softplus layers, down the scales and up again, read by levels.

    At scale s, the average pool of x over 2ˢ pixels, the quadratics f_s are of windows of it. Down,
    z_s takes f_s and the pool of z_{s−1}; up, z'_s takes f_s, z_s and z'_{s+1} spread out, all with
    weights ≥ 0, and T·K = Σ_pixels T log Σ_k exp(y_k/T) takes f_0 and z'_0 as context. Averages,
    copies and sums with weights ≥ 0 keep joint convexity. The levels' offsets know their place, no
    other weight does.

    Args:
        shape: (C, H, W) of one image.
        channels: units of each layer at each position; as many quadratics.
        scales: how many, each of half the side length.
        levels: components of each pixel.
        window: side length of the convolutions, odd.
        num_classes: class labels, 0 for none.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        channels: int = 32,
        scales: int = 3,
        levels: int = 8,
        window: int = 3,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        require_image(type(self).__name__, shape)
        require_positive(channels=channels, scales=scales, levels=levels, window=window)
        if window % 2 == 0:
            raise UserError(f"window is {window}; it must be odd.")
        self.shape, self.num_classes = tuple(shape), num_classes
        colours, *places = self.shape
        down, up = range(scales), range(scales - 1)

        def tempered() -> Tempered:
            return Tempered(colours, channels, num_classes, window)

        def units() -> NonNegative:
            return NonNegative(channels, channels, UNITS, window)

        def squares() -> NonNegative:
            return NonNegative(channels, channels, QUADRATICS, 1)

        self.quadratics = nn.ModuleList(Quadratics(colours, channels, window) for _ in down)
        self.down, self.up = (nn.ModuleList(tempered() for _ in r) for r in (down, up))
        self.squares_down, self.squares_up = (
            nn.ModuleList(squares() for _ in r) for r in (down, up)
        )
        self.coarser, self.across, self.finer = (
            nn.ModuleList(units() for _ in up) for _ in range(3)
        )
        self.context = nn.ModuleList(
            NonNegative(channels, colours * levels, CONTEXT, 1) for _ in range(2)
        )
        self.levels = Levels(colours, levels, num_classes, tuple(places))

    def perspective(self, x: Tensor, t: Tensor, w: float, label: Tensor | None) -> Tensor:
        t = t.view(-1, 1, 1, 1)
        images = [x]
        squares: list[Tensor] = []
        units: list[Tensor] = []
        for s, quadratics in enumerate(self.quadratics):
            squares.append(quadratics(images[s], t, w))
            convex = self.squares_down[s](squares[s])
            if s > 0:
                convex = convex + self.coarser[s - 1](_pool(units[-1]))
            units.append(self.down[s](images[s], t, w, label, convex))
            images.append(_pool(images[s]))
        z = units[-1]
        for s in reversed(range(len(self.up))):
            spread = F.interpolate(z, images[s].shape[2:])
            convex = self.squares_up[s](squares[s]) + self.across[s](units[s])
            z = self.up[s](images[s], t, w, label, convex + self.finer[s](spread))
        of_squares, of_units = self.context
        return self.levels(x, t, w, label, of_squares(squares[0]) + of_units(z))


def _pool(x: Tensor) -> Tensor:
    """Means over squares of two by two, fewer pixels at an odd edge."""
    return F.avg_pool2d(x, 2, ceil_mode=True)
