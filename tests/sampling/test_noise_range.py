"""Noise levels that a model was not made for are named in a warning."""

import warnings

import pytest
import torch

from energydiff.energies import GaussianMixture
from energydiff.sampling import Euler, GradientDescent, Guarded, Langevin, Sampler, karras_sigmas


def model(low: float = 0.1, high: float = 5.0) -> GaussianMixture:
    energy = GaussianMixture(torch.zeros(1, 2), 0.5)
    energy.noise = (low, high)  # type: ignore[assignment]
    return energy


@pytest.mark.parametrize(
    "sampler",
    [
        Euler(karras_sigmas(3, 0.1, 10.0)),
        Euler(karras_sigmas(3, 0.05, 5.0)),
        Guarded(Euler([10.0, 0.05])),
        Langevin(10.0, updates=2),
        GradientDescent(2, sigma=0.05),
    ],
)
def test_levels_outside_are_named_once_a_call(sampler: Sampler) -> None:
    with pytest.warns(UserWarning, match=r"leave those that GaussianMixture knows") as caught:
        sampler(model(), seeds=range(2))
    assert len(caught) == 1 and caught[0].filename == __file__
    said, high, low = str(caught[0].message), *sampler.sigmas[[0, -1]].tolist()
    assert f"from {high:g} down to {low:g}" in said and "5 to 0.1" in said


@pytest.mark.parametrize(
    "sampler", [Euler(karras_sigmas(3, 0.1, 5.0)), Euler([4.0, 0.2]), Langevin(0.3, updates=2)]
)
def test_levels_inside_are_not_spoken_of(sampler: Sampler) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler(model(), seeds=range(2))
        # A range that was kept in single precision is the same range.
        single = torch.tensor([0.1, 5.0]).tolist()
        sampler(model(*single), seeds=range(2))
        sampler(GaussianMixture(torch.zeros(1, 2), 0.5), seeds=range(2))  # knows all noise
