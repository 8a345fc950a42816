"""How far a denoiser is from being a gradient field.

D = x − ∇V has a symmetric Jacobian J if and only if it comes from a scalar. ‖J − Jᵀ‖/‖J + Jᵀ‖
(Frobenius) is 0 for every energy, up to rounding, and 1 for a random matrix.
"""

import torch
from torch import Tensor

from energydiff.derivatives import differentiable
from energydiff.energies.base import Denoiser, Sigma, sigma_vector


def jacobian_asymmetry(
    denoiser: Denoiser, x: Tensor, sigma: Sigma, label: Tensor | None = None, chunk: int = 128
) -> float:
    """Mean of ‖J − Jᵀ‖_F / ‖J + Jᵀ‖_F over points x (B, \\*shape), J = ∂D/∂x at noise ``sigma``.

    Exact: d derivatives of the denoiser per point, ``chunk`` of them at a time. Meant for some
    dozens of points. ``sigma`` is a scalar or (B,), ``label`` None or (B,).
    """
    ratios = []
    for i, level in enumerate(sigma_vector(sigma, x)):
        point_label = None if label is None else label[i : i + 1]
        jacobian = _jacobian(denoiser, x[i], level, point_label, chunk)
        skew, even = (jacobian - jacobian.T).norm(), (jacobian + jacobian.T).norm()
        ratios.append(skew / even if skew > 0 else skew)
    return float(torch.stack(ratios).mean())


def _jacobian(
    denoiser: Denoiser, x: Tensor, sigma: Tensor, label: Tensor | None, chunk: int
) -> Tensor:
    """∂D/∂x at one point x (\\*shape): (d, d) float64, in row blocks.

    Every row has a replica of x to itself, so that one backward pass yields a whole block.
    """
    blocks = []
    with differentiable(x.device, autocast=False):
        for rows in torch.arange(x.numel(), device=x.device).split(chunk):
            replicas = x.clone().detach().expand(len(rows), *x.shape).clone().requires_grad_()
            labels = None if label is None else label.clone().expand(len(rows))
            out = denoiser.denoise(replicas, sigma.clone().expand(len(rows)), labels)
            diagonal = out.flatten(1).gather(1, rows[:, None]).sum()
            blocks.append(torch.autograd.grad(diagonal, replicas)[0].flatten(1).double())
    return torch.cat(blocks)
