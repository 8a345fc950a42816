"""Layers that are jointly convex in the natural parameters of the noise, for all weights.

Write T = σ². Every layer is a map of (x, T, w), homogeneous of degree 1 and jointly convex where
T > 0 and w ≥ 0. At w = 1 it is T·K(x/T, 1/T), the *perspective* of a K that is jointly convex in
θ = x/T and s = 1/T (Boyd & Vandenberghe 2004, §3.2.6), and at (0, T, 0) it is T·K(0, 0). So w
stands wherever a constant would. Closed under this: affine maps of x, w and T, sums with weights
≥ 0, a square over a positive affine map, and t·f(y/t) for f convex and increasing, y such a layer
and t = T + τw.

Channels come second: x is (B, C) or (B, C, H, W), T (B, 1) or (B, 1, 1, 1).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Beyond it F.softplus is linear: its jump there must vanish in float64.
SOFTPLUS_THRESHOLD = 40.0
LEAST_SLOPE = 1e-4  # of a quadratic's denominator in T, so that it vanishes at (0, T, 0)
SPAN = 1.6  # of the first levels, in units of σ_d: where data lie


def inverse_softplus(value: float | Tensor) -> Tensor:
    """The x with log(1 + eˣ) = value > 0."""
    return torch.as_tensor(value).expm1().log()


class NonNegative(nn.Module):
    """A linear map, or a convolution of an odd window, whose weights are softplus(raw) ≥ 0.

    Args:
        inputs, outputs: channels.
        total: sum of the weights of one output, at first and about.
        window: 0 of vectors; side length of a convolution.
    """

    def __init__(self, inputs: int, outputs: int, total: float, window: int = 0) -> None:
        super().__init__()
        size = (window,) * 2 if window else ()
        first = inverse_softplus(total / (inputs * math.prod(size)))
        self.raw = nn.Parameter(first + 0.3 * torch.randn(outputs, inputs, *size))

    def forward(self, z: Tensor) -> Tensor:
        weight = F.softplus(self.raw)
        if self.raw.ndim == 2:
            return F.linear(z, weight)
        return F.conv2d(z, weight, padding="same")


def linear(inputs: int, outputs: int, window: int = 0) -> nn.Module:
    """Without a bias, of vectors or images as :class:`NonNegative`."""
    if window:
        return nn.Conv2d(inputs, outputs, window, padding="same", bias=False)
    return nn.Linear(inputs, outputs, bias=False)


class Offset(nn.Module):
    """b w + c T for every channel, and position if asked; of a label b and c of its own on top.

    Args:
        channels: number of them.
        num_classes: class labels, 0 for none; the last row is for "unknown".
        places: (H, W) for offsets that differ between positions.
    """

    def __init__(self, channels: int, num_classes: int, places: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.zeros(channels, *places))
        self.slope = nn.Parameter(torch.zeros(channels, *places))
        self.label = nn.Embedding(num_classes + 1, 2 * channels) if num_classes else None
        if self.label is not None:
            nn.init.zeros_(self.label.weight)

    def forward(self, t: Tensor, w: float, label: Tensor | None) -> Tensor:
        offset = w * _channels(self.constant, t) + t * _channels(self.slope, t)
        if self.label is None:
            return offset
        unknown = self.label.num_embeddings - 1
        if label is None:
            label = torch.full((1,), unknown, device=t.device)
        of_label: Tensor = self.label(torch.where(label < 0, unknown, label))
        constant, slope = of_label.view(len(label), -1, *[1] * (t.ndim - 2)).chunk(2, dim=1)
        return offset + w * constant + t * slope


class Quadratics(nn.Module):
    """(a·x + b w)² / 2(w + c T), the quadratic over linear, one for each output; c > 0.

    As T → 0 it keeps its curvature; at T it is the log-partition of a Gaussian of variance 1/c
    along a, but for a term of T alone.
    """

    def __init__(self, inputs: int, outputs: int, window: int = 0) -> None:
        super().__init__()
        self.direction = linear(inputs, outputs, window)
        self.shift = nn.Parameter(torch.zeros(outputs))
        # Of variances between e and e⁻⁴ of σ_d².
        spread = torch.linspace(-1, 4, outputs)[torch.randperm(outputs)]
        self.raw_slope = nn.Parameter(inverse_softplus(spread.exp()))

    def forward(self, x: Tensor, t: Tensor, w: float) -> Tensor:
        along = self.direction(x) + w * _channels(self.shift, t)
        slope = LEAST_SLOPE + F.softplus(_channels(self.raw_slope, t))
        return along.square() / (2 * (w + slope * t))


class Tempered(nn.Module):
    """t·softplus(y/t) with t = T + τw, of y = A x + offset + (what is convex already), in units.

    At τ = 0 a unit is a log-sum-exp memory of two at temperature T; τ > 0 keeps it smooth as T → 0.
    """

    def __init__(self, inputs: int, units: int, num_classes: int, window: int = 0) -> None:
        super().__init__()
        self.affine = linear(inputs, units, window)
        self.offset = Offset(units, num_classes)
        spread = torch.linspace(-5.0, 0.5, units)[torch.randperm(units)]
        self.raw_softness = nn.Parameter(inverse_softplus(spread.exp()))

    def forward(
        self, x: Tensor, t: Tensor, w: float, label: Tensor | None, convex: Tensor
    ) -> Tensor:
        y = self.affine(x) + self.offset(t, w, label) + convex
        t = t + w * F.softplus(_channels(self.raw_softness, t))
        return t * F.softplus(y / t, threshold=SOFTPLUS_THRESHOLD)


class Levels(nn.Module):
    """Σ_i T log Σ_k exp(y_ik/T): each scalar x_i a mixture of Gaussians, its weights by context.

    y_ik = v x_i − ½v² w + offset + ½(x_i − m w)²/(w + T/λ) − (T/2) log(1 + λw/T) + (what is convex
    already), which is, at m = v and offset 0, the log-partition of N(v, λ) on the line. So at
    first, without context, the scalars are independent, and nearly uniform over the levels.

    Returned is the sum less ½‖x‖²/w, which each y_ik takes in: −½(x_i − v w)² is small where level
    k counts, and divided by a small T its terms apart would leave nothing of float32.

    Args:
        channels: of x, each with its own v, m and λ.
        levels: K.
        places: (H, W) of images, () of vectors.
    """

    def __init__(
        self, channels: int, levels: int, num_classes: int, places: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.levels = levels
        value = torch.linspace(-SPAN, SPAN, levels).repeat(channels)
        self.value, self.centre = nn.Parameter(value), nn.Parameter(value.clone())
        variance = (0.7 * 2 * SPAN / max(levels - 1, 1)) ** 2
        self.raw_variance = nn.Parameter(inverse_softplus(variance).repeat(len(value)))
        self.offset = Offset(len(value), num_classes, places)

    def forward(
        self, x: Tensor, t: Tensor, w: float, label: Tensor | None, convex: Tensor
    ) -> Tensor:
        """(B,); ``convex`` is (B, channels · levels, …). At w = 0, x must be 0."""
        x = x.repeat_interleave(self.levels, dim=1)
        ratio = F.softplus(_channels(self.raw_variance, t)) / t
        y = self.offset(t, w, label) + convex - 0.5 * (x - w * _channels(self.value, t)).square()
        y = y + 0.5 * (x - w * _channels(self.centre, t)).square() * (ratio / (w * ratio + 1))
        y = y / t - 0.5 * torch.log1p(w * ratio)
        each = y.unflatten(1, (-1, self.levels)).logsumexp(2)
        return t.flatten() * each.flatten(1).sum(1)


def _channels(values: Tensor, t: Tensor) -> Tensor:
    """Of each channel, (C, …), to go with (B, C, …)."""
    return values.view(*values.shape, *[1] * (t.ndim - 1 - values.ndim))
