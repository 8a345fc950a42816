"""Paths between minima, and where they are highest: what searches for saddles start from."""

import torch
from torch import Tensor

from energydiff.energies.base import sigma_vector
from energydiff.landscape.surface import Surface


def string(
    surface: Surface,
    a: Tensor,
    b: Tensor,
    sigma: float,
    *,
    images: int = 11,
    rounds: int = 20,
    eta: float = 0.3,
) -> tuple[Tensor, Tensor]:
    """Paths (P, images, d) from a to b (P, d), each near the one of least V, and V along them.

    The simplified string method (E et al. 2007): every image descends by η∇V, then
    all are spaced evenly along the path again; the ends stay.
    """
    share = torch.linspace(0, 1, images).to(a)
    path = torch.lerp(a[:, None], b[:, None], share[:, None])
    for _ in range(rounds):
        inner = path[:, 1:-1]
        slope = surface.gradient(inner.flatten(0, 1), sigma)[1]
        path[:, 1:-1] = inner - eta * slope.view_as(inner)
        path = _evenly(path)
    return path, surface.value(path.flatten(0, 1), sigma).view(path.shape[:2])


def summits(path: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images where V is highest along its path, the path's direction there, and which path's.

    Several of one path where it passes other minima. (n, d), (n, d) of length 1, (n,).
    """
    middle = value[:, 1:-1]
    which, image = ((middle > value[:, :-2]) & (middle >= value[:, 2:])).nonzero(as_tuple=True)
    along = path[which, image + 2] - path[which, image]
    return path[which, image + 1], along / along.norm(dim=1, keepdim=True), which


def neighbours(x: Tensor, count: int) -> Tensor:
    """Pairs (P, 2), i < j, of rows of x (n, d) of which one is among the other's nearest."""
    distance = torch.cdist(x, x)
    distance.fill_diagonal_(torch.inf)
    near = distance.argsort(dim=1)[:, : min(count, len(x) - 1)]
    pairs = torch.stack([torch.arange(len(x)).to(x.device)[:, None].expand_as(near), near], -1)
    return pairs.flatten(0, 1).sort(dim=1).values.unique(dim=0)


def soft_starts(x: Tensor, modes: Tensor, sigma: float | Tensor, reach: float) -> Tensor:
    """x (n, d) moved both ways along each of its modes (n, k, d) by reach · σ, (2 n k, d)."""
    step = reach * sigma_vector(sigma, x)[:, None, None] * modes
    return torch.cat([x[:, None] + step, x[:, None] - step], 1).flatten(0, 1)


def _evenly(path: Tensor) -> Tensor:
    """Images at equal arc lengths of the polygon, (P, images, d)."""
    lengths = path.diff(dim=1).norm(dim=2)
    arc = torch.cat([torch.zeros_like(lengths[:, :1]), lengths.cumsum(1)], 1)
    wanted = torch.linspace(0, 1, path.shape[1]).to(path) * arc[:, -1:]
    right = torch.searchsorted(arc, wanted.contiguous()).clamp(1, path.shape[1] - 1)
    left = right - 1
    span = (arc.gather(1, right) - arc.gather(1, left)).clamp(min=torch.finfo(arc.dtype).tiny)
    share = ((wanted - arc.gather(1, left)) / span)[..., None]
    at = [i[..., None].expand_as(path) for i in (left, right)]
    return torch.lerp(path.gather(1, at[0]), path.gather(1, at[1]), share)
