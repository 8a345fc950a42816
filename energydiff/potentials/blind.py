"""Noise-blind scalars H(x) from a vector field F(x): whole energies, minimal at data.

Wang & Du 2025 (Equilibrium Matching), §3.3 and their code, write an explicit energy as an inner
product or as a squared norm. Neither sign is free: H falls along the sampled direction, so the
inner product is −⟨x, F⟩ and the squared norm +½‖f‖², as in the code.

The coercive form adds the ½‖x‖² that the inner product lacks. Every backbone ends in a linear map
of normalised features, so ‖F(x)‖ ≤ B whatever x, and H ≥ ½k‖x‖(‖x‖ − B) → ∞: it is bounded below,
its sublevel sets are compact, and descent from anywhere stays in one of them. The squared norm of
x − F is coercive too. The inner product is bounded only by −B‖x‖, and runs away.
"""

from torch import Tensor

from energydiff.potentials.potential import Potential


class NegativeInnerProduct(Potential):
    """H = −⟨x, F(x)⟩: the published default ("dot"). Not bounded below."""

    parametrization = "dot"
    noise_blind = True

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return -(u * self.backbone(u, c, label).to(u.dtype)).flatten(1).sum(1)


class SquaredNorm(Potential):
    """H = ½‖x − F(x)‖² ≥ 0: the published ½‖f(x)‖² ("l2") of the field f = x − F.

    A field that starts at zero has no parameter gradient in ½‖f‖² and would never move; x − F does.
    """

    parametrization = "squared_norm"
    noise_blind = True

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return 0.5 * (u - self.backbone(u, c, label).to(u.dtype)).square().flatten(1).sum(1)


class Coercive(Potential):
    """H = k (½‖x‖² − ½⟨x, F(x)⟩), k = 4: the length of equilibrium matching's target."""

    parametrization = "coercive"
    noise_blind = True
    scale = 4.0

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        field = self.backbone(u, c, label).to(u.dtype)
        return 0.5 * self.scale * (u * (u - field)).flatten(1).sum(1)
