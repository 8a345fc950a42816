"""How consistent an energy is across noise: the residual of the heat equation.

A density blurred by growing noise obeys the heat equation, so its energy obeys, in nats,

    ∂E/∂log σ = σ² (ΔE − ‖∇E‖²)

exactly at every x and σ. A learned E obeys it only if its score is right *and* its gauge is: a
wrong c(σ) adds c′(log σ) to the left side alone. The right side also measures a dimension: at a
point x of the data d − σ²(ΔE − ‖∇E‖²) = d + σ²(∇·s + ‖s‖²) tends to the dimension of the data there
as σ → 0: 0 at an isolated point, k on a k-plane.
"""

from dataclasses import dataclass

from torch import Tensor

from energydiff.energies.base import Energy, Sigma, at_least_float32, per_sample
from energydiff.likelihood.divergence import denoise_and_divergence, trace_probes


@dataclass(frozen=True)
class HeatResidual:
    """Both sides of the heat equation at points x, and how far they are apart.

    Attributes:
        slope: ∂E/∂log σ, (B,), nats.
        heat: σ²(ΔE − ‖∇E‖²), (B,), nats.
        scale: |∂E/∂log σ| + σ²|ΔE| + σ²‖∇E‖², (B,), nats: no residual is larger.
        dim: d.
    """

    slope: Tensor
    heat: Tensor
    scale: Tensor
    dim: int

    @property
    def residual(self) -> Tensor:
        """``slope − heat``, (B,), nats: 0 for a true density."""
        return self.slope - self.heat

    @property
    def relative(self) -> Tensor:
        """``residual / scale``, (B,), from −1 to 1."""
        return self.residual / self.scale

    @property
    def score(self) -> float:
        """RMS residual / RMS scale, from 0 (consistent) to 1.

        The variance of a Hutchinson trace adds to it: compare scores at one number of probes, or
        use the exact trace.
        """
        return float((self.residual.square().mean() / self.scale.square().mean()).sqrt())

    @property
    def local_dimension(self) -> Tensor:
        """d + σ²(∇·s + ‖s‖²), (B,): at x on the data, its dimension at scale σ."""
        return self.dim - self.heat


def heat_residual(
    energy: Energy,
    x: Tensor,
    sigma: Sigma,
    label: Tensor | None = None,
    *,
    probes: int | None = 1,
    seed: int = 0,
    first: int = 0,
) -> HeatResidual:
    """The heat equation's two sides at points x (B, \\*shape), meant to be noisy data x0 + σε.

    Args:
        sigma: scalar or (B,).
        probes: random signs per point for the trace (Hutchinson 1990), which leaves ``residual``
            unbiased; ``None`` for the exact trace, d backward passes.
        seed, first: as in :func:`trace_probes`.
    """
    x = at_least_float32(x)
    _, grad, slope = (part.detach() for part in energy.value_and_grads(x, sigma, label))
    vectors = trace_probes(x, probes, seed, first)
    _, divergence = denoise_and_divergence(energy, x, sigma, vectors, label)
    laplacian = energy.dim - divergence  # σ²ΔE
    squared = (per_sample(sigma, x) * grad).square().flatten(1).sum(1)
    return HeatResidual(
        slope=slope,
        heat=laplacian - squared,
        scale=slope.abs() + laplacian.abs() + squared,
        dim=energy.dim,
    )
