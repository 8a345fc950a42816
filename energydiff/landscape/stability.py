"""Structural stability: would the picture survive a small change of the energy?

A gradient flow is structurally stable if and only if it is Morse–Smale: finitely many critical
points, all hyperbolic, with transverse stable and unstable manifolds, so that none leads from a
saddle to another of equal index (Palis & Smale 1970; for memories and diffusion models, Hess &
Morris 2025). For data ∇²V = I − Cov_w/σ², so that the margin min |λ| is min |1 − λ_i(Cov_w)/σ²|.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.landscape.critical import CriticalPoints
from energydiff.landscape.morse import MorseGraph
from energydiff.landscape.search import descend
from energydiff.landscape.surface import Surface
from energydiff.memory.kernels import LogSumExpMemory

MARGIN = 1e-6  # eigenvalues of ∇²V below are taken for 0


@dataclass(frozen=True)
class Stability:
    """What was found at one σ.

    Attributes:
        sigma: noise level.
        points: critical points found.
        margin: least |λ| of ∇²V over all of them; its relative size is that of a change of ∇²V
            that could make one degenerate.
        weakest: number of the point that has it, among all by index.
        degenerate: numbers of the points whose margin is below ``tolerance``.
        connections: (index-1 saddle, branch 0 or 1) of the branches down that end on a saddle of
            index 1, or end in another minimum when nudged aside by ``morse.TILT`` σ: they run along
            the border of two basins, which only such a connection can do.
        euler_sum: Σ (−1)^index, 1 if none is missing.
        tolerance: margin that counts as 0.
    """

    sigma: float
    points: int
    margin: float
    weakest: int
    degenerate: list[int]
    connections: list[tuple[int, int]]
    euler_sum: int
    tolerance: float

    @property
    def morse_smale(self) -> bool:
        """As far as what was found goes."""
        return not self.degenerate and not self.connections

    @property
    def complete(self) -> bool:
        """Σ (−1)^index = 1, which is necessary for having found all."""
        return self.euler_sum == 1

    def __str__(self) -> str:
        verdict = "Morse–Smale" if self.morse_smale else "not Morse–Smale"
        reasons = [
            f"the least |eigenvalue| of the {self.points} critical points is {self.margin:.3g}"
        ]
        if self.degenerate:
            reasons.append(f"degenerate: {len(self.degenerate)}")
        if self.connections:
            reasons.append(f"saddle–saddle connections: {len(self.connections)}")
        if not self.complete:
            reasons.append(f"the sum of (−1)^index is {self.euler_sum}, so that some are missing")
        return f"sigma = {self.sigma:g}: {verdict}; {', '.join(reasons)}."


def structural_stability(
    graph: MorseGraph, others: CriticalPoints | None = None, *, tolerance: float = MARGIN
) -> Stability:
    """Of a Morse graph and critical points of higher index, all at one σ.

    Connections are looked for between saddles of index 1 alone, the only ones that change which
    minima a saddle joins.
    """
    parts = [graph.minima, graph.saddles, *([] if others is None else [others])]
    points = CriticalPoints.join(parts)
    if not len(points):
        raise UserError("there are no critical points to judge: search for minima first.")
    joined = ((graph.hits >= 0) | graph.flips).nonzero()
    return Stability(
        sigma=float(points.sigma[0]),
        points=len(points),
        margin=float(points.margin.amin()),
        weakest=int(points.margin.argmin()),
        degenerate=(points.margin < tolerance).nonzero()[:, 0].tolist(),
        connections=[(saddle, branch) for saddle, branch in joined.tolist()],
        euler_sum=points.euler_sum,
        tolerance=tolerance,
    )


@dataclass(frozen=True)
class Hyperbolicity:
    """Of fixed points of a memory's update, one for each state.

    Attributes:
        x: the fixed points, (B, d).
        eigenvalues: of the Hessian of H there, rising, (B, d).
    """

    x: Tensor
    eigenvalues: Tensor

    @property
    def margin(self) -> Tensor:
        """min |λ|, (B,); 0 is degenerate."""
        return self.eigenvalues.abs().amin(1)

    @property
    def index(self) -> Tensor:
        """Morse index, (B,)."""
        return (self.eigenvalues < 0).sum(1)

    @property
    def hyperbolic(self) -> Tensor:
        """(B,)."""
        return self.margin >= MARGIN


def attention_hyperbolicity(
    keys: Tensor, beta: float, states: Tensor, *, steps: int = 2000, tolerance: float = 1e-10
) -> Hyperbolicity:
    """Fixed points of x ← Σ softmax(β Xx)_k x_k near states, and whether they are hyperbolic.

    The update of a modern Hopfield network, and of an attention head whose values are its keys (at
    β = 1/√d_head, with queries as states). It has the Jacobian βX(diag p − ppᵀ)Xᵀ, the covariance
    of the keys under p times β, and a fixed point is hyperbolic if and only if 1 is not among its
    eigenvalues (Hess & Morris 2025).

    Args:
        keys: (K, d).
        beta: β > 0.
        states: where the update starts, (B, d).
        steps, tolerance: of the update, until ‖x − x'‖ ≤ tolerance √d.
    """
    surface = Surface(LogSumExpMemory(beta).store(keys.double()))
    x = descend(surface, surface.flat(states), 1.0, steps=steps, tolerance=tolerance)
    return Hyperbolicity(x, 1 - attention_spectrum(keys, beta, x))


def attention_spectrum(keys: Tensor, beta: float, states: Tensor) -> Tensor:
    """Eigenvalues of βX(diag p − ppᵀ)Xᵀ with p = softmax(βXx), falling, (B, d).

    As squared singular values of the K rows √(βp_k)(x_k − x̄), which loses no digits to p near 0.
    """
    keys = keys.to(states)
    values = []
    for x in states.split(max(1, 2**24 // keys.numel())):
        p = (beta * x @ keys.T).softmax(1)
        rows = (beta * p).sqrt()[..., None] * (keys - (p @ keys)[:, None])
        squared = torch.linalg.svdvals(rows).square()
        values.append(torch.nn.functional.pad(squared, (0, keys.shape[1] - squared.shape[1])))
    return torch.cat(values)


def hopfield_hessian(weights: Tensor, x: Tensor, gain: float) -> Tensor:
    """−W + diag(R⁻¹/g′(u)) of the classic Hopfield network at x = g(u), g = tanh, (B, d, d).

    With R = ∞ it is −W everywhere: the network is structurally unstable where W is singular
    (Hess & Morris 2025, proposition 26), as it is by Hebb's rule of fewer patterns than neurons.

    Args:
        weights: W, (d, d).
        x: outputs of the neurons, (B, d), inside (−1, 1).
        gain: R; ``math.inf`` for none of the second term.
    """
    if not bool((x.abs() < 1).all()):
        raise UserError("the outputs x of a classic Hopfield network lie between -1 and 1.")
    return torch.diag_embed(1 / (gain * (1 - x.square()))) - weights.to(x)


def hopfield_hyperbolicity(weights: Tensor, x: Tensor, gain: float) -> Hyperbolicity:
    """Of fixed points x (B, d), which are not looked for; arguments of :func:`hopfield_hessian`."""
    x = x.double()
    return Hyperbolicity(x, torch.linalg.eigvalsh(hopfield_hessian(weights, x, gain)))
