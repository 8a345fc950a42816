"""Input-convex networks (Amos et al. 2017) and the potential whose denoiser is ∇ψ."""

import math
from typing import Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from energydiff.potentials.backbone import Conditioning, Network
from energydiff.potentials.potential import Potential


class InputConvex(Network):
    """A scalar ψ(u, c, label) convex in u, and the curvature q(c, label) ≥ 0 of a quadratic.

    z_{k+1} = softplus(P_k z_k + (1 + s_k) ∘ W_k u + b_k) with P_k ≥ 0, and ψ = ⟨a, z_L⟩ with a ≥ 0:
    softplus is convex and increasing, so each z_k is convex in u (Amos et al. 2017, prop. 1). s_k,
    b_k, a and q depend on noise and label in any way (their partially input-convex network).

    Args:
        shape: shape of one sample; flattened inside.
        width: hidden width.
        depth: number of layers.
        num_classes: class labels, 0 for none.
    """

    def __init__(
        self, shape: tuple[int, ...], width: int = 256, depth: int = 3, num_classes: int = 0
    ) -> None:
        super().__init__()
        self.shape, self.num_classes = tuple(shape), num_classes
        dim = math.prod(self.shape)
        self.conditioning = Conditioning(width, num_classes)
        self.direct = nn.ModuleList(nn.Linear(dim, width, bias=False) for _ in range(depth))
        self.modulation = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(depth))
        self.convex = nn.ParameterList(torch.randn(width, width) for _ in range(depth - 1))
        self.readout = nn.Linear(width, width)
        self.curvature = nn.Linear(width, 1)
        nn.init.constant_(self.readout.bias, -3.0)  # a small ψ at first
        nn.init.zeros_(self.curvature.weight)
        nn.init.zeros_(self.curvature.bias)

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """ψ and q, (B,) and (B or 1,). Arguments as in :meth:`Backbone.forward`."""
        embedding = F.silu(self.conditioning(c, label))
        flat = rearrange(u, "b ... -> b (...)")
        z = None
        for k, (direct, modulation) in enumerate(zip(self.direct, self.modulation, strict=True)):
            scale, shift = modulation(embedding).chunk(2, dim=-1)
            y = torch.addcmul(shift, direct(flat), 1 + scale)
            if z is not None:
                weight = F.softplus(self.convex[k - 1])
                y = y + F.linear(z, weight) / len(weight)
            z = F.softplus(y)
        assert z is not None
        psi = (F.softplus(self.readout(embedding)) * z).sum(1)
        return psi, 2 * torch.sigmoid(self.curvature(embedding))[:, 0]


class ConvexDenoiser(Potential):
    """The φ for which D = q c_skip x + σ_d ∇_u ψ(u, c), the gradient of a convex function of x.

    φ = √(1 + ρ²) ψ(u, c) − (1 − q) ρ ½‖u‖² with ρ = σ_d/σ: put into the energy denoiser's
    D = c_skip x + c_out ∇_u φ, its second part takes back the share 1 − q of c_skip x. So ∇D ⪰ 0
    for all weights, and x' = x − η∇V lowers V for every 0 ≤ η ≤ 2, as for the energy of real data.
    (A convex φ alone would give ∇D ⪰ c_skip: at low noise, nothing could be denoised.)

    Args:
        backbone: an :class:`InputConvex`.
        sigma_data: σ_d of the denoiser that this is a potential of.
    """

    parametrization = "convex"
    takes = InputConvex
    convex_denoiser = True

    def __init__(self, backbone: Network, sigma_data: float) -> None:
        super().__init__(backbone)
        self.sigma_data = sigma_data

    @classmethod
    def of(cls, backbone: Network, sigma_data: float) -> Self:
        return cls(backbone, sigma_data)

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        psi, q = self.backbone(u, c, label)
        ratio = self.sigma_data * torch.exp(-4 * c)
        quadratic = 0.5 * u.square().flatten(1).sum(1)
        return (1 + ratio.square()).sqrt() * psi - (1 - q) * ratio * quadratic
