"""The gauge c(σ): the part of an energy that denoising score matching leaves free."""

from typing import Any

import torch
from torch import Tensor, nn


class Gauge(nn.Module):
    """A function c(log σ) in nats, a cubic Hermite spline over a grid, 0 until calibrated.

    Buffers ``log_sigma`` (rising) and ``offset``, both (nodes,), travel with the model's weights;
    the slopes at the nodes are second-order differences of them. Outside the grid the outermost
    slope goes on. c′ is continuous, as the time score that it corrects is: that of straight lines
    is off by half the change between two intervals, 63 nats at the σ_min of a digits U-Net.
    """

    log_sigma: Tensor
    offset: Tensor
    slope: Tensor

    def __init__(self, nodes: int = 65) -> None:
        super().__init__()
        self.register_buffer("log_sigma", torch.linspace(-5.0, 5.0, nodes))
        self.register_buffer("offset", torch.zeros(nodes))
        self.register_buffer("slope", torch.zeros(nodes), persistent=False)
        self.register_load_state_dict_post_hook(_fit_slopes)

    @torch.no_grad()
    def set(self, log_sigma: Tensor, offset: Tensor) -> None:
        """Replace the nodes; both (nodes,), as many as the gauge was built with."""
        self.log_sigma.copy_(log_sigma)
        self.offset.copy_(offset)
        _fit_slopes(self)

    def forward(self, log_sigma: Tensor) -> Tensor:
        place, _, (a, b, c, d) = self._cubic(log_sigma)
        t = place.clamp(0, 1)
        return a + t * (b + t * (c + t * d)) + (place - t) * (b + t * (2 * c + t * 3 * d))

    def derivative(self, log_sigma: Tensor) -> Tensor:
        """c′(log σ), nats."""
        place, width, (_, b, c, d) = self._cubic(log_sigma)
        t = place.clamp(0, 1)
        return (b + t * (2 * c + t * 3 * d)) / width

    def _cubic(self, log_sigma: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The interval around each log σ: where in it (0 to 1), its width and its polynomial."""
        buffers = (self.log_sigma, self.offset, self.slope)
        nodes, offset, slope = (buffer.to(log_sigma.dtype) for buffer in buffers)
        right = torch.bucketize(log_sigma.detach(), nodes).clamp(1, len(nodes) - 1)
        left = right - 1
        width = nodes[right] - nodes[left]
        rise, start, end = offset[right] - offset[left], width * slope[left], width * slope[right]
        polynomial = (offset[left], start, 3 * rise - 2 * start - end, start + end - 2 * rise)
        return (log_sigma - nodes[left]) / width, width, polynomial


def _fit_slopes(gauge: Gauge, *_: Any) -> None:
    """The slopes at the nodes, of second order on any grid."""
    (slope,) = torch.gradient(gauge.offset, spacing=(gauge.log_sigma,), edge_order=2)
    gauge.slope.copy_(slope)
