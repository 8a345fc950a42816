"""The gauge c(σ): the part of an energy that denoising score matching leaves free."""

import torch
from torch import Tensor, nn


class Gauge(nn.Module):
    """A function c(log σ) in nats, linear between the nodes of a grid, 0 until calibrated.

    Buffers ``log_sigma`` (rising) and ``offset``, both (nodes,), travel with the model's weights.
    Outside the grid the outermost slope goes on.
    """

    log_sigma: Tensor
    offset: Tensor

    def __init__(self, nodes: int = 65) -> None:
        super().__init__()
        self.register_buffer("log_sigma", torch.linspace(-5.0, 5.0, nodes))
        self.register_buffer("offset", torch.zeros(nodes))

    @torch.no_grad()
    def set(self, log_sigma: Tensor, offset: Tensor) -> None:
        """Replace the nodes; both (nodes,), as many as the gauge was built with."""
        self.log_sigma.copy_(log_sigma)
        self.offset.copy_(offset)

    def forward(self, log_sigma: Tensor) -> Tensor:
        node, offset, slope = self._segment(log_sigma)
        return offset + slope * (log_sigma - node)

    def derivative(self, log_sigma: Tensor) -> Tensor:
        """c′(log σ), nats."""
        return self._segment(log_sigma)[2]

    def _segment(self, log_sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Left node, offset there and slope of the segment around each log σ."""
        nodes = self.log_sigma.to(log_sigma.dtype)
        offset = self.offset.to(log_sigma.dtype)
        right = torch.bucketize(log_sigma.detach(), nodes).clamp(1, len(nodes) - 1)
        left = right - 1
        slope = (offset[right] - offset[left]) / (nodes[right] - nodes[left])
        return nodes[left], offset[left], slope
