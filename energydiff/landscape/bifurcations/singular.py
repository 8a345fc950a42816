"""A system of which branch points of one mode are regular solutions:

    ∇V + μ v = 0,    H v = 0,    ⟨v, ∂∇V/∂p⟩ = 0,    ‖v‖ = 1    in (x, p, v, μ)

(Govaerts 2000, ch. 4). μ is what unfolds a branch point: it is 0 at one, and the force along v that
is missing where two branches only come near each other. Newton's matrices are central differences,
for up to some hundred dimensions.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from energydiff.landscape.bifurcations.branches import CriticalSystem

STEP = 1e-5


def differences(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The Jacobian (B, n, m) of a function (·, m) to (·, n) at z (B, m)."""
    count, size = z.shape
    moves = STEP * torch.eye(size).to(z)
    points = torch.cat([z[:, None] + moves, z[:, None] - moves], 1)
    values = function(points.flatten(0, 1)).view(count, 2 * size, -1)
    return (values[:, :size] - values[:, size:]).mT / (2 * STEP)


def branch_point(system: CriticalSystem, z: Tensor, v: Tensor) -> tuple[Tensor, float] | None:
    """The branch point (d + 1,) of one mode near z (d + 1,), v (d,), and μ; None without one."""
    size = system.family.dim

    def residual(w: Tensor) -> Tensor:
        point, v, mu = w[:, : size + 1], w[:, size + 1 : -1], w[:, -1:]
        x, p = system.state(point), system.parameter(point)
        pull = (system.column(x, p) * v).sum(1, keepdim=True)
        norm = 0.5 * (v.square().sum(1, keepdim=True) - 1)
        force = system.residual(point) + mu * v
        return torch.cat([force, system.family.product(x, p)(v), pull, norm], 1)

    w = torch.cat([z, v, v.new_zeros(1)])[None]
    for _ in range(12):
        r = residual(w)
        step = torch.linalg.lstsq(differences(residual, w), r[..., None]).solution[..., 0]
        w = w - step
        if float(step.norm()) < 1e-9:
            return w[0, : size + 1], float(w[0, -1])
        if not bool(w.isfinite().all()) or float((w[0, : size + 1] - z).norm()) > 1:
            break
    return None
