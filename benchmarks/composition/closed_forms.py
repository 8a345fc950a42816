"""Compositions in one dimension against quadrature of their density: spread and shares of modes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.composition.correctors import corrected
from energydiff.energies import GaussianMixture, Mixture, Sum, Temperature
from energydiff.progress import progress
from energydiff.sampling import Ancestral, Heun, SequentialMonteCarlo, karras_sigmas

LOW, HIGH, COUNT, SEEDS = 0.02, 10.0, 20_000, 5
LEVELS = (20, 80)


def modes(
    *means: float, std: float | list[float], weights: list[float] | None = None
) -> GaussianMixture:
    """In one dimension."""
    given = None if weights is None else torch.tensor(weights).double()
    return GaussianMixture(torch.tensor(means).double()[:, None], torch.tensor(std).double(), given)


COMPOSED: dict[str, Sum] = {
    "two unit Gaussians": Sum([modes(0.0, std=1.0)] * 2),
    "two mixtures": Sum(
        [modes(-1.5, 1.5, std=0.5), modes(-1.0, 2.0, std=[0.4, 0.8], weights=[0.3, 0.7])]
    ),
    "mixture at T = ½": Temperature(modes(-2.0, 2.0, std=[0.3, 0.6]), 0.5),
    "mixture at T = 2": Temperature(modes(-2.0, 2.0, std=[0.3, 0.6], weights=[0.2, 0.8]), 2.0),
    "one mode without the other": Sum(
        [modes(-2.0, 2.0, std=0.5), Mixture([modes(2.0, std=0.6), modes(0.0, std=4.0)])],
        [2.0, -1.0],
    ),
}


@dataclass(frozen=True)
class Error:
    """Means over seeds: of the spread, relative and with its sign, and of the share of x < 0, in
    points and without; and the lowest effective sample size of any, a share."""

    spread: float
    share: float
    ess: float | None


def errors() -> Iterator[tuple[str, str, int, Error]]:
    """(composition, sampler, levels, error) of each."""
    ways: dict[str, Callable[[Sum, Tensor, int], tuple[Tensor, float | None]]] = {
        "Heun": lambda energy, sigmas, seed: (_drawn(Heun(sigmas), energy, seed), None),
        "ancestral": lambda energy, sigmas, seed: (_drawn(Ancestral(sigmas), energy, seed), None),
        "Feynman–Kac": lambda energy, sigmas, seed: corrected(energy, sigmas, COUNT, seed),
        "sequential Monte Carlo": _population,
    }
    with progress("Compositions", len(COMPOSED) * len(ways) * len(LEVELS)) as tell:
        done = 0
        for name, energy in COMPOSED.items():
            spread, share = _truth(energy)
            for way, draw in ways.items():
                for levels in LEVELS:
                    sigmas = karras_sigmas(levels, LOW, HIGH)
                    found = [draw(energy, sigmas, seed) for seed in range(SEEDS)]
                    xs = torch.stack([x[:, 0].double() for x, _ in found])
                    lowest = [ess for _, ess in found if ess is not None]
                    error = Error(
                        float((xs.std(1) / spread - 1).mean()),
                        float(((xs < 0).double().mean(1) - share).abs().mean()),
                        min(lowest) if lowest else None,
                    )
                    tell(done := done + 1)
                    yield name, way, levels, error


def _drawn(sampler: Heun | Ancestral, energy: Sum, seed: int) -> Tensor:
    seeds = range(seed * COUNT, (seed + 1) * COUNT)
    return sampler(energy, seeds=seeds, trace=False).samples


def _population(energy: Sum, sigmas: Tensor, seed: int) -> tuple[Tensor, float]:
    seeds = range(seed * COUNT, (seed + 1) * COUNT)
    sampler = SequentialMonteCarlo(sigmas, particles=COUNT)
    result = sampler(energy, seeds=seeds)
    assert result.trace is not None
    return result.samples, sampler.diagnose(result.trace).ess / COUNT


def _truth(energy: Sum) -> tuple[float, float]:
    """Spread and share of x < 0 under exp(−E) at σ_min, by quadrature."""
    x = torch.linspace(-12, 12, 40_001).double()
    density = (-energy(x[:, None], LOW)).softmax(0)
    mean = (density * x).sum()
    return float((density * (x - mean).square()).sum().sqrt()), float(density[x < 0].sum())
