"""Noise-blind energies: one H(x) for all noise, to be descended instead of denoised."""

from collections.abc import Mapping
from typing import Any, NoReturn, Self

import torch
from torch import Tensor

from energydiff.denoisers.compiled import compilable
from energydiff.denoisers.description import describe_learned, described_network
from energydiff.energies.base import Energy, Sigma
from energydiff.errors import UserError
from energydiff.potentials import Potential
from energydiff.potentials.potential import find_potential, name_of

# Of a descent from noise: a twelfth of the way to data where ∇H = 4(ε − x0).
STEP_SIZE = 0.02


class BlindEnergy(Energy):
    """E(x, σ) = H(x)/σ², the Gibbs energy of a learned H at temperature σ².

    The convention of the associative memories: V is H up to a constant and ∇V = ∇H at every σ, so a
    trace at σ = 1, the default here, is one of H. H knows no noise level. It is therefore no
    −log p_σ, has no posterior mean, and ``denoise`` is refused rather than answered by a gradient
    step that would look like one.

    Args:
        potential: H(x), asked at the constant c = 0.

    Attributes:
        resting_norm: ‖∇H‖ at which descent rests, units of H per unit of x; chosen on held-out data
            when training ends, 0 before.
        compiler: the backend of ``torch.compile`` that its derivatives are compiled by, if any.
    """

    noise_blind = True
    compiler: str | None = None
    resting_norm: Tensor

    gradient = compilable(Energy.gradient)
    gradients = compilable(Energy.gradients)

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        if not potential.noise_blind:
            raise UserError(f"{type(potential).__name__} knows its noise: make an EnergyDenoiser.")
        self.shape = potential.backbone.shape
        self.num_classes = potential.backbone.num_classes
        self.potential = potential
        self.register_buffer("resting_norm", torch.zeros(()))

    def __call__(self, x: Tensor, sigma: Sigma = 1.0, label: Tensor | None = None) -> Tensor:
        return super().__call__(x, sigma, label)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        c = x.new_zeros(1).expand(len(x))  # expanded, so that it is embedded once
        return self.potential(x, c, label) / sigma.square()

    def denoise(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> NoReturn:
        raise UserError(
            "a noise-blind energy has no noise level and no posterior mean: descend it with"
            " GradientDescent, Nesterov or Armijo, and train it with EquilibriumMatching or"
            " EnergyMatching."
        )

    def describe(self) -> dict[str, Any]:
        return describe_learned(self, name_of(self.potential), self.potential.backbone)

    @classmethod
    def build(cls, arguments: Mapping[str, Any], state: Mapping[str, Tensor], what: str) -> Self:
        backbone = described_network(arguments, what)
        return cls(find_potential(arguments["parametrization"]).of(backbone, 1.0))
