"""What must hold of a field g that claims to be ∇E, and how far it is from holding.

A field is the gradient of E if its slope in any direction is the difference quotient of E, its
Jacobian is symmetric, and its integral around any loop is 0. Training needs its derivative in the
weights as well, which is a second derivative of E. In float64 the first two are held against
differences of E and of g themselves, so nothing has to be trusted; every other way to compute g is
then held against that.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from energydiff.energies import Energy
from energydiff.energies.base import per_sample

# Lengths of difference steps, in units of the state's own RMS. The best counts: a longer one is
# curved, a shorter one is rounded.
STEPS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
DIRECTIONS = 3
TINY = 1e-300
# Of a loop, in the same units: shorter ones where work is left, as sharp landscapes leave it to the
# quadrature. NODES are of one side.
SIDES, NODES = (0.2, 0.02, 0.002), 16


@dataclass(frozen=True)
class States:
    """Where a model is looked at: like what training shows it, but for the data.

    Attributes:
        x: (B, \\*shape), of the size of noised data.
        sigma, label: (B,) and (B,) or ``None``.
        directions: of differences and of loops, each like x, with the RMS of x.
        weights: of the training gradient: of ∇E like x, and of ∂E/∂log σ (B,).
    """

    x: Tensor
    sigma: Tensor
    label: Tensor | None
    directions: tuple[Tensor, ...]
    weights: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, energy: Energy, sigmas: Sequence[float], scale: float, each: int = 2) -> "States":
        """``each`` states at each σ, (σ² + scale²)^½ ε; float64 on the CPU, the same every time."""
        draw = torch.Generator().manual_seed(0)
        count = each * len(sigmas)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64)

        sigma = torch.tensor(sigmas, dtype=torch.float64).repeat_interleave(each)
        size = per_sample((sigma**2 + scale**2).sqrt(), torch.empty(count, *energy.shape))
        label = torch.arange(count) % energy.num_classes if energy.num_classes else None
        x, *directions = (size * noise(count, *energy.shape) for _ in range(DIRECTIONS + 1))
        weights = noise(count, *energy.shape) * size, noise(count)
        return cls(x, sigma, label, tuple(directions), weights)

    def to(self, device: torch.device, dtype: torch.dtype) -> "States":
        """The same elsewhere, or in another type."""
        return self._each(lambda t: t.detach().to(device, dtype if t.is_floating_point() else None))

    def part(self, rank: int, ranks: int) -> "States":
        """Those that one process of several looks at, which are theirs in order."""
        return self._each(lambda t: t.tensor_split(ranks)[rank])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "States":
        return States(
            change(self.x),
            change(self.sigma),
            None if self.label is None else change(self.label),
            tuple(change(v) for v in self.directions),
            (change(self.weights[0]), change(self.weights[1])),
        )


@dataclass(frozen=True)
class Finding:
    """One thing that must hold of one way.

    Attributes:
        what: in a few words.
        error: relative, 0 where it holds exactly.
        tolerance: what rounding may make of it.
    """

    what: str
    error: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Also false where the error is not a number."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Answers:
    """What one way makes of the states, in float64 on the CPU.

    Attributes:
        grad: ∇E, as sampling with and without E and training ask for it, each like x.
        slope: ∂E/∂log σ (B,).
        training: the gradient of Σ⟨w, ∇E⟩ + Σ v ∂E/∂log σ in all weights, one vector.
    """

    grad: dict[str, Tensor]
    slope: Tensor
    training: Tensor


class Asked(nn.Module):
    """A model with all that is asked of it as its forward pass, as a training step is."""

    def __init__(self, energy: Energy) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, states: States) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """``grad`` and ``slope`` of :class:`Answers`, and what ``training`` is the gradient of."""
        given = states.x, states.sigma, states.label
        _, grad = self.energy.value_and_grad(*given)
        alone = -self.energy.score(*given)
        _, third, slope = self.energy.value_and_grads(*given)
        total = (states.weights[0] * third).sum() + (states.weights[1] * slope).sum()
        return {"with E": grad, "alone": alone, "with ∂E/∂σ": third}, slope, total


def answers(asked: Asked, states: States, learning: bool) -> Answers:
    """Of a model in its own precision, training or not as it is; its gradients are left in it.

    learning: whether the training gradient is asked for.
    """
    tensors = (t for t in asked.state_dict().values() if t.is_floating_point())
    like = next(tensors, states.x)
    here = states.to(like.device, like.dtype)
    # A model in training keeps its graph.
    here.x.requires_grad_(learning and not asked.energy.training)
    learned = [p for p in asked.parameters() if p.requires_grad]  # shared out, outside of a call
    grads, slope, total = asked(here)
    parts = [torch.zeros(0)]
    if learning and learned:
        total.backward()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in learned]
    training = torch.cat([_exact(p).flatten() for p in parts])
    return Answers({n: _exact(g) for n, g in grads.items()}, _exact(slope), training)


def measure_reference(
    energy: Energy, states: States, found: Answers, tolerance: float
) -> list[Finding]:
    """Of a model in float64 in evaluation mode, whose answers are held against its differences."""

    def value(x: Tensor) -> Tensor:
        return energy(x, states.sigma, states.label).detach()

    def grad(x: Tensor) -> Tensor:
        return energy.value_and_grad(x, states.sigma, states.label)[1].detach()

    def by_noise(shift: float) -> Tensor:
        return energy(states.x, states.sigma * math.exp(shift), states.label).detach()

    mine, x = found.grad["with E"], states.x
    along = torch.stack([_inner(mine, v) for v in states.directions], 1)
    slopes, by_sigma = [], []
    for h in STEPS:
        ends = [(value(x + h * v) - value(x - h * v)) / (2 * h) for v in states.directions]
        slopes.append(_apart(along, torch.stack(ends, 1)))
        by_sigma.append(_apart(found.slope[None], (by_noise(h) - by_noise(-h))[None] / (2 * h)))
    findings = {
        "∇E is the slope of E": min(slopes),
        "∂E/∂log σ is the slope of E": min(by_sigma),
        "∇E has a symmetric Jacobian": min(_curl(grad, states, h) for h in STEPS),
        "∇E does no work around a loop": _loop(grad, states, tolerance),
    }
    if len(found.training):
        findings["training gradient is the slope of ∇E"] = _by_weights(energy, states, found)
    return [Finding(what, error, tolerance) for what, error in findings.items()]


def measure_way(mine: Answers, reference: Answers, tolerance: float) -> list[Finding]:
    """One way held against the reference; a derivative more is rounded more."""
    theirs = reference.grad["with E"]
    findings = [
        Finding(f"∇E {name}", _apart(grad, theirs), tolerance) for name, grad in mine.grad.items()
    ]
    slope = _apart(mine.slope[None], reference.slope[None])
    findings.append(Finding("∂E/∂log σ", slope, 3 * tolerance))
    if len(mine.training):
        error = _apart(mine.training[None], reference.training[None])
        findings.append(Finding("training gradient", error, 3 * tolerance))
    return findings


def _curl(grad: Callable[[Tensor], Tensor], states: States, step: float) -> float:
    """|⟨v, Jw⟩ − ⟨w, Jv⟩| over ‖v‖‖Jw‖ + ‖w‖‖Jv‖, the largest over states and pairs."""
    v, *others = states.directions
    products = [
        (grad(states.x + step * w) - grad(states.x - step * w)) / (2 * step) for w in (v, *others)
    ]
    worst = 0.0
    for w, along_w in zip(others, products[1:], strict=True):
        skew = (_inner(v, along_w) - _inner(w, products[0])).abs()
        size = _norm(v) * _norm(along_w) + _norm(w) * _norm(products[0])
        worst = max(worst, float((skew / size.clamp_min(TINY)).max()))
    return worst


def _loop(grad: Callable[[Tensor], Tensor], states: States, tolerance: float) -> float:
    """The work around the longest loop that leaves no more than a tolerance, or around the best."""
    error = math.inf
    for length in SIDES:
        if not error <= tolerance:
            error = min(error, _work(grad, states, length))
    return error


def _work(grad: Callable[[Tensor], Tensor], states: States, reach: float) -> float:
    """∮⟨g, dx⟩ over ∮‖g‖‖dx‖ around triangles, the largest over states."""
    a, b, *_ = states.directions
    corners = [states.x, states.x + reach * a, states.x + reach * b]
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    work, length = torch.zeros(len(a)), torch.zeros(len(a))
    for begin, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        side = end - begin
        for node, weight in zip(0.5 * (nodes + 1), 0.5 * weights, strict=True):
            g = grad(begin + float(node) * side)
            work = work + float(weight) * _inner(g, side)
            length = length + float(weight) * _norm(g) * _norm(side)
    return float((work.abs() / length.clamp_min(TINY)).max())


def _by_weights(energy: Energy, states: States, found: Answers) -> float:
    """The training gradient in some directions against differences of ∇E and ∂E/∂log σ."""
    learned = [p for p in energy.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in learned]
    sizes = [p.square().mean().sqrt().clamp_min(1e-2) for p in before]
    draw = torch.Generator().manual_seed(1)

    def total(shifts: Sequence[Tensor], h: float) -> Tensor:
        with torch.no_grad():
            for p, at, shift in zip(learned, before, shifts, strict=True):
                p.copy_(at + h * shift)
        _, grad, slope = energy.value_and_grads(states.x, states.sigma, states.label)
        return ((states.weights[0] * grad).sum() + (states.weights[1] * slope).sum()).detach()

    slopes, quotients = [], []
    for _ in range(DIRECTIONS):
        shifts = [
            size * torch.randn(p.shape, generator=draw, dtype=p.dtype)
            for p, size in zip(learned, sizes, strict=True)
        ]
        slopes.append(found.training @ torch.cat([shift.flatten() for shift in shifts]))
        quotients.append(
            torch.stack([(total(shifts, h) - total(shifts, -h)) / (2 * h) for h in STEPS])
        )
    total(before, 0.0)  # the weights are what they were
    along, by_step = torch.stack(slopes)[None], torch.stack(quotients, 1)
    return min(_apart(along, quotient[None]) for quotient in by_step)


def _apart(mine: Tensor, theirs: Tensor) -> float:
    """‖mine − theirs‖ over the larger of the two, the largest over rows."""
    mine, theirs = mine.flatten(1), theirs.flatten(1)
    size = torch.maximum(mine.norm(dim=1), theirs.norm(dim=1)).clamp_min(TINY)
    return float(((mine - theirs).norm(dim=1) / size).max())


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _norm(a: Tensor) -> Tensor:
    return a.flatten(1).norm(dim=1)


def _exact(t: Tensor) -> Tensor:
    whole: Tensor = getattr(t, "full_tensor", lambda: t)()  # of weights that are shared out
    return whole.detach().double().cpu()
