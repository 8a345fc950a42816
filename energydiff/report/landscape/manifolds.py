"""Stable and unstable manifolds of saddles in the plane, as curves.

Along them ẋ = ±∇V/‖∇V‖, which runs through the orbits of the gradient flow at speed 1, so that a
curve reaches the critical point at its other end in finite time.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from energydiff.landscape.critical import CriticalPoints
from energydiff.landscape.surface import Surface

NUDGE = 0.05  # from the saddle, units of σ
FLAT = 0.01  # ‖∇V‖ at which a curve has arrived, units of σ
SHARP = 400  # points of a curve

Curve = NDArray[np.float64]  # (points, 2)


def separatrices(surface: Surface, points: CriticalPoints, reach: float) -> list[Curve]:
    """Stable manifolds of the index-1 saddles among ``points``, two curves each, from the saddle.

    They are the borders of basins. A curve ends where V is flat again, at a maximum, or ``reach``
    units of x from the saddle. All points are at one σ.
    """
    return _curves(surface, points, reach, up=True)


def branches(surface: Surface, points: CriticalPoints, reach: float) -> list[Curve]:
    """Unstable manifolds of the index-1 saddles, two curves each, down to a minimum."""
    return _curves(surface, points, reach, up=False)


def _curves(surface: Surface, points: CriticalPoints, reach: float, up: bool) -> list[Curve]:
    saddles = points.of_index(1)
    if not len(saddles):
        return []
    sigma, way = float(saddles.sigma[0]), 1.0 if up else -1.0
    modes = saddles.modes.flatten(2)[:, int(up)].numpy()
    centres = np.repeat(saddles.x.flatten(1).numpy(), 2, 0)
    start = centres + NUDGE * sigma * np.stack([modes, -modes], 1).reshape(-1, 2)

    def slope(x: Curve) -> Curve:
        states = torch.from_numpy(x).to(surface.device)
        grad: Curve = surface.gradient(states, sigma)[1].cpu().numpy()
        return grad

    # Near the saddle V is as flat as the nudge is small.
    flat = np.minimum(FLAT * sigma, 0.5 * np.linalg.norm(slope(start), axis=1))

    def flow(_: float, y: Curve) -> Curve:
        x = y.reshape(-1, 2)
        grad = slope(x)
        size = np.linalg.norm(grad, axis=1)
        going = (size > flat) & (np.linalg.norm(x - centres, axis=1) < reach)
        velocity: Curve = way * grad / np.maximum(size, 1e-12)[:, None] * going[:, None]
        return velocity.ravel()

    times = np.linspace(0, 2 * reach, SHARP)
    path = solve_ivp(flow, (0, times[-1]), start.ravel(), t_eval=times, rtol=1e-4, atol=1e-5)
    states = path.y.T.reshape(len(times), -1, 2)
    return list(np.concatenate([centres[None], states]).swapaxes(0, 1))
