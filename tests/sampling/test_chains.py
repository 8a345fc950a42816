"""R̂ and effective sample size: chains whose autocorrelation is known, and chains that disagree."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from energydiff.energies import GaussianMixture
from energydiff.errors import UserError
from energydiff.sampling import (
    MALA,
    Langevin,
    effective_sample_size,
    karras_sigmas,
    report_chains,
    split_rhat,
)


def autoregressive(correlation: float, draws: int = 4000, chains: int = 4, seed: int = 0) -> Tensor:
    """Stationary x' = ρx + √(1 − ρ²) z: n independent draws of it are worth n (1 − ρ)/(1 + ρ)."""
    noise = torch.randn(draws, chains, generator=torch.Generator().manual_seed(seed)).double()
    x = [noise[0]]
    for z in noise[1:]:
        x.append(correlation * x[-1] + (1 - correlation**2) ** 0.5 * z)
    return torch.stack(x)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, -0.5])
def test_the_effective_sample_size_of_an_autoregression(correlation: float) -> None:
    draws = autoregressive(correlation)
    expected = draws.numel() * (1 - correlation) / (1 + correlation)
    assert effective_sample_size(draws).item() == pytest.approx(expected, rel=0.2)
    assert split_rhat(draws).item() == pytest.approx(1, abs=0.01)


def counted(draws: int, chains: int, correlation: float, apart: float) -> Tensor:
    """An autoregression on sums of twelve congruential numbers: the same anywhere."""
    state, out = 12345, torch.zeros(draws, chains, dtype=torch.float64)
    for j in range(chains):
        x = 0.0
        for i in range(draws):
            total = -6.0
            for _ in range(12):
                state = (1103515245 * state + 12345) % 2**31
                total += state / 2**31
            x = correlation * x + total
            out[i, j] = x + apart * j
    return out


@pytest.mark.parametrize(
    ("case", "rhat", "ess"),
    [
        ((200, 4, 0.0, 0.0), 1.0028596769263132, 820.1066754271498),
        ((400, 3, 0.9, 0.0), 1.0245473512605368, 87.09337675321734),
        ((150, 4, 0.5, 1.0), 1.4761453329430478, 8.177462839600087),
        ((201, 2, -0.6, 0.0), 1.013303597173301, 1040.823996531185),
    ],
)
def test_arviz_says_the_same(case: tuple[int, int, float, float], rhat: float, ess: float) -> None:
    """Figures of arviz 0.23.4, whose autocovariances lack the paper's n/(n − 1)."""
    draws = counted(*case)
    assert split_rhat(draws).item() == pytest.approx(rhat, rel=1e-6)
    assert effective_sample_size(draws).item() == pytest.approx(ess, rel=0.02)


def test_rhat_sees_another_mean_another_spread_and_a_drift() -> None:
    agreeing = autoregressive(0.0, draws=400)
    apart = agreeing + torch.tensor([0.0, 0.0, 0.0, 1.0])
    wider = agreeing * torch.tensor([1.0, 1.0, 1.0, 3.0])
    drifting = agreeing + torch.linspace(-1, 1, 400)[:, None]
    for draws in (apart, wider, drifting):
        assert split_rhat(draws).item() > 1.04 > 1.01 > split_rhat(agreeing).item()
    assert effective_sample_size(apart).item() < 0.1 * effective_sample_size(agreeing).item()


@given(st.integers(0, 2**31 - 1))
def test_only_the_order_of_values_counts(seed: int) -> None:
    """Of the bulk; R̂ also folds them about the median, which keeps affine maps only."""
    draws = autoregressive(0.7, draws=40, chains=3, seed=seed)
    assert_close(effective_sample_size(draws.exp()), effective_sample_size(draws))
    # Of a power of two: the two draws next to the median are folded onto each other, to the bit.
    assert_close(split_rhat(4 * draws), split_rhat(draws))
    # Of others rounding says which of the two comes first, among 120.
    assert_close(split_rhat(3 * draws - 5), split_rhat(draws), rtol=1e-2, atol=0)


def test_statistics_are_judged_one_by_one_and_the_worst_is_named() -> None:
    good, bad = autoregressive(0.0, draws=200), autoregressive(0.98, draws=200)
    both = torch.stack([good, bad], dim=2)
    assert_close(split_rhat(both), torch.stack([split_rhat(good), split_rhat(bad)]))
    sizes = torch.stack([effective_sample_size(good), effective_sample_size(bad)])
    assert_close(effective_sample_size(both), sizes)
    report = report_chains({"good": good, "both": both})
    assert (report.chains, report.draws) == (4, 200)
    assert (report.rhat_of, report.ess_of) == ("both", "both")
    assert report.rhat == pytest.approx(split_rhat(bad).item())
    assert "do not agree yet" in str(report)
    assert " agree:" in str(report_chains({"good": autoregressive(0.0)}))


def test_a_constant_is_mixed() -> None:
    assert split_rhat(torch.zeros(10, 2)).item() == 1
    assert effective_sample_size(torch.zeros(10, 2)).item() == 20


def test_too_few_draws_are_a_sentence() -> None:
    with pytest.raises(UserError, match="4 draws or more"):
        split_rhat(torch.zeros(3, 8))


def test_chains_are_judged_by_what_they_recorded() -> None:
    """Two wells: chains at low noise stay in theirs, which E alone shows where wells differ."""
    wells = GaussianMixture(torch.tensor([[-2.0], [2.0]]).double(), 0.3, torch.tensor([0.2, 0.8]))
    start = torch.tensor([[-2.0], [2.0]]).double().repeat(4, 1)
    stuck = MALA(0.1, updates=200, step_size=2.0)
    free = MALA(2.0, updates=400, step_size=1.0)
    for sampler, agrees in ((stuck, False), (free, True)):
        xs: list[Tensor] = []
        result = sampler(
            wells, start, seeds=range(8), on_step=lambda _, here, xs=xs: xs.append(here.x)
        )
        report = sampler.diagnose(result.trace)
        assert (report.rhat < 1.03) == agrees
        x = torch.stack(xs)
        assert (float(split_rhat(x).max()) < 1.03) == agrees
        expected = split_rhat(result.trace.energy)
        assert report.rhat >= expected.item() and report.draws == len(result.trace.sigma)


def test_annealed_chains_are_judged_at_the_lowest_noise() -> None:
    energy = GaussianMixture(torch.zeros(1, 2).double(), 0.3)
    sampler = Langevin(karras_sigmas(3, 0.1, 5.0), True, updates=6, step_size=0.1)
    trace = sampler(energy, seeds=range(4)).trace
    report = sampler.diagnose(trace)
    assert report.draws == 7  # six moves, and not the denoising after them
    few = Langevin(karras_sigmas(3, 0.1, 5.0), updates=2)
    assert few.diagnose(few(energy, seeds=range(4)).trace) is None
