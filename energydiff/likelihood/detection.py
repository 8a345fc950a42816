"""Out-of-distribution detection by the energy at chosen noise.

AUROC: the chance that a sample from outside has a higher energy than one from inside. V at a fixed
σ is a rising function of E, so its AUROC is the same number. High energy does not mean unfamiliar
as such: simple images have low energies under models of complex ones (Nalisnick et al. 2019), and
an AUROC below one half says so.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from energydiff.data import Source
from energydiff.energies.base import Energy
from energydiff.errors import UserError
from energydiff.random import LIKELIHOOD, keyed_normal


def ood_auroc(
    energy: Energy,
    inside: Source,
    outside: Source,
    sigmas: Sequence[float] | Tensor,
    *,
    seed: int = 0,
    batch_size: int = 256,
) -> Tensor:
    """AUROC of E(x0 + σε, σ), ``outside`` against ``inside``, at each noise: (levels,) float64.

    Each source is brought to about [-1, 1] by its own normalization. The noise belongs to
    (seed, sample, level), apart for the two sources. A conditional energy is asked without labels.

    Raises UserError for an empty source or samples that are not of the energy's shape.
    """
    # Importing scikit-learn takes a second, which no other measure should pay.
    from sklearn.metrics import roc_auc_score

    for source in (inside, outside):
        if len(source) == 0 or source.shape != energy.shape:
            raise UserError(
                f"the energy takes samples of shape {energy.shape}; a source has"
                f" {len(source)} of shape {source.shape}."
            )
    areas = []
    for level, sigma in enumerate(sigmas):
        start = level * (len(inside) + len(outside))
        low = _energies(energy, inside, float(sigma), seed, start, batch_size)
        high = _energies(energy, outside, float(sigma), seed, start + len(inside), batch_size)
        truth = torch.cat([torch.zeros(len(low)), torch.ones(len(high))])
        areas.append(roc_auc_score(truth.numpy(), torch.cat([low, high]).numpy()))
    return torch.tensor(areas, dtype=torch.float64)


@torch.no_grad()
def _energies(
    energy: Energy, source: Source, sigma: float, seed: int, first: int, batch_size: int
) -> Tensor:
    """E of each sample of the source under its own noise, (N,)."""
    like = next(iter(energy.state_dict().values()), torch.empty(0))
    energies = []
    for raw, _ in DataLoader(source, batch_size):
        x0 = source.normalization.encode(raw)
        noise = keyed_normal(seed, range(first, first + len(x0)), energy.shape, LIKELIHOOD)
        energies.append(energy((x0 + sigma * noise).to(like.device), sigma).cpu())
        first += len(x0)
    return torch.cat(energies)
