"""Sequential Monte Carlo: compositions whose density is known, at few steps and at many."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.energies import (
    Energy,
    GaussianMixture,
    Guidance,
    LinearInverse,
    Mixture,
    Negation,
    Sum,
    Temperature,
)
from energydiff.energies.base import Sigma
from energydiff.errors import NoEnergyError, UserError
from energydiff.potentials import MLP
from energydiff.sampling import Ancestral, Heun, SequentialMonteCarlo, karras_sigmas

LOW, HIGH = 0.02, 10.0
SIGMAS = karras_sigmas(20, LOW, HIGH)
COUNT = 20_000
MANY = 60_000  # where the effective sample size is half of that, and the statistics have tails
HARD = ("negation", "one mode without the other", "guidance")


def modes(*means: float, std: Any = 0.3, weights: Any = None) -> GaussianMixture:
    """In one dimension."""
    std, weights = torch.as_tensor(std).double(), weights and torch.tensor(weights).double()
    return GaussianMixture(torch.tensor(means).double()[:, None], std, weights)


class Classes(Energy):
    """A mixture of two classes that answers for one of them, or for both together."""

    shape, num_classes = (1,), 2

    def __init__(self) -> None:
        super().__init__()
        self.each = torch.nn.ModuleList([modes(-1.5, 0.5, std=0.4), modes(1.5, std=0.6)])
        self.both = Mixture([*self.each])  # type: ignore[arg-type]

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        answers = torch.stack([*(each(x, sigma) for each in self.each), self.both(x, sigma)])
        chosen = torch.full((len(x),), 2) if label is None else torch.where(label < 0, 2, label)
        return answers[chosen, torch.arange(len(x))]


EXPERTS = modes(-1.5, 1.5, std=0.5), modes(-1.0, 2.0, std=[0.4, 0.8], weights=[0.3, 0.7])
COMPOSED: dict[str, Energy] = {
    "sum of two Gaussians": Sum([modes(0.0, std=1.0)] * 2),
    "sum of unlike Gaussians": Sum([modes(-0.5, std=1.0), modes(1.0, std=0.4)], [0.5, 1.5]),
    "sum of mixtures": Sum(EXPERTS),
    "cold mixture": Temperature(modes(-2.0, 2.0, std=[0.3, 0.6]), 0.5),
    "hot mixture": Temperature(modes(-2.0, 2.0, std=[0.3, 0.6], weights=[0.2, 0.8]), 2.0),
    "negation": Sum([modes(0.0, std=1.0), Negation(modes(1.0, std=2.0))], [1.0, 0.5]),
    "one mode without the other": Sum(
        [modes(-2.0, 2.0, std=0.5), Negation(Mixture([modes(2.0, std=0.6), modes(0.0, std=4.0)]))],
        [2.0, 1.0],
    ),
    "guidance": Guidance(Classes(), 1.5),
    "inverse problem": LinearInverse(
        modes(-1.0, 1.0, std=0.4), torch.tensor([[2.0]]).double(), torch.tensor([0.6]).double(),
        sigma_y=1.0, sigma_data=1.1,
    ),
}  # fmt: skip


def drawn(energy: Energy, count: int = COUNT, **options: Any) -> Any:
    label = torch.zeros(count, dtype=torch.int64) if energy.num_classes else None
    sampler = SequentialMonteCarlo(SIGMAS, particles=count, **options)
    return sampler(energy, seeds=range(count), label=label)


def quadrature(energy: Energy, sigma: float = LOW) -> tuple[Tensor, Tensor]:
    """Points of the line, and exp(−E) on them times their distance."""
    x = torch.linspace(-12, 12, 20_001).double()[:, None]
    label = torch.zeros(len(x), dtype=torch.int64) if energy.num_classes else None
    return x[:, 0], (-energy(x, sigma, label)).exp() * 24 / 20_000


@pytest.mark.parametrize("name", COMPOSED)
def test_spread_and_shares_are_within_two_percent(name: str) -> None:
    """And log ∫exp(−E) within .02, by quadrature of exp(−E) itself."""
    energy = COMPOSED[name]
    x, mass = quadrature(energy)
    density = mass / mass.sum()
    mean = (density * x).sum()
    std = (density * (x - mean).square()).sum().sqrt()
    result = drawn(energy, MANY if name in HARD else COUNT)
    found = result.samples[:, 0]
    assert_close(found.std(), std, rtol=0.02, atol=0)
    assert_close(found.mean(), mean, rtol=0, atol=0.02 * float(std))
    for border in (-0.75, 0.0, 0.75):
        share = density[x < border].sum()
        assert_close((found < border).double().mean(), share, rtol=0, atol=0.015)
    assert_close(result.trace.log_normalizer[-1, 0], mass.sum().log(), rtol=0, atol=0.02)


def test_the_closed_forms_are_what_is_meant() -> None:
    """Spread √½ of two unit Gaussians; p^(1/T) has shares ∝ w^(1/T) s^(d(1 − 1/T))."""
    assert drawn(COMPOSED["sum of two Gaussians"]).samples.std().item() == pytest.approx(
        math.sqrt(0.5 * (1 + LOW**2)), rel=0.02
    )
    for name, w, t in (("cold mixture", 0.5, 0.5), ("hot mixture", 0.2, 2.0)):
        left, right = w ** (1 / t) * 0.3 ** (1 - 1 / t), (1 - w) ** (1 / t) * 0.6 ** (1 - 1 / t)
        found = drawn(COMPOSED[name]).samples[:, 0]
        share = (found < 0.0).double().mean().item()
        assert share == pytest.approx(left / (left + right), abs=0.02)
        if t < 1:  # else the modes overlap
            assert found[found < 0].std().item() == pytest.approx(0.3 * math.sqrt(t), rel=0.03)


def test_the_posterior_of_a_mixture_given_a_measurement() -> None:
    """In two dimensions, one of them measured: each mode a Gaussian posterior of known weight."""
    means, std, noise = torch.tensor([[-1.0, -1.0], [1.0, 0.5]]).double(), 0.4, 0.5
    seen, y = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([0.2]).double()
    energy = LinearInverse(GaussianMixture(means, std), seen, y, noise, sigma_data=1.0)
    result = drawn(energy).samples
    evidence = (-0.5 * (y - means[:, 0]).square() / (std**2 + noise**2)).softmax(0)
    left = result[:, 1] < -0.25 - result[:, 0]  # beyond a line between the modes
    assert left.double().mean().item() == pytest.approx(evidence[0].item(), abs=0.02)
    gain = std**2 / (std**2 + noise**2)
    for mode, chosen in ((0, left), (1, ~left)):
        centre = means[mode, 0] + gain * (y - means[mode, 0])
        assert result[chosen, 0].mean().item() == pytest.approx(centre.item(), abs=0.03)
    spread = result[~left, 0].std().item()
    assert spread == pytest.approx(std * math.sqrt(1 - gain), rel=0.04)


def test_without_weights_the_same_compositions_are_missed() -> None:
    """The tests above can fail: other samplers of the same energies do."""
    for sampler in (Heun(SIGMAS), Ancestral(SIGMAS)):
        x = sampler(COMPOSED["sum of two Gaussians"], seeds=range(2000), trace=False).samples
        assert abs(x.std().item() / math.sqrt(0.5) - 1) > 0.2
    mixture = COMPOSED["cold mixture"]
    x = Ancestral(SIGMAS)(mixture, seeds=range(4000), trace=False).samples[:, 0]
    assert abs((x < 0).double().mean().item() - 0.8) > 0.1


def test_isotropic_gaussians_have_equal_weights_at_any_number_of_steps() -> None:
    """The forward kernel is then the exact reversal of the backward one, but for the estimate of h
    where a step takes all but a millionth of the noise."""
    energy = Sum([GaussianMixture(torch.zeros(1, 16).double(), 0.7)] * 3, [1.0, 0.5, 1.0])
    for steps in (2, 8):
        sampler = SequentialMonteCarlo(karras_sigmas(steps, LOW, 100.0), particles=4000)
        result = sampler(energy, seeds=range(4000))
        assert float(result.trace.ess.min()) > 0.94 * 4000
        assert result.samples.std().item() == pytest.approx(0.7 / math.sqrt(2.5), rel=0.01)


def normaliser(name: str, kind: type[SequentialMonteCarlo]) -> tuple[float, float]:
    """The mean of 2,000 estimates by six steps and eight particles, over the truth; its error."""
    energy, sigmas = COMPOSED[name], torch.tensor([10.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.1])
    trace = kind(sigmas, particles=8)(energy, seeds=range(16_000)).trace
    assert trace is not None and trace.log_normalizer is not None
    estimates = trace.log_normalizer[-1, ::8].exp() / quadrature(energy, 0.1)[1].sum()
    return float(estimates.mean()), float(estimates.std()) / math.sqrt(len(estimates))


UNBIASED = ["sum of unlike Gaussians", "sum of mixtures", "inverse problem"]


@pytest.mark.parametrize("name", UNBIASED)
def test_the_normaliser_is_unbiased_at_six_steps_and_eight_particles(name: str) -> None:
    mean, error = normaliser(name, SequentialMonteCarlo)
    assert 0 < error < 0.01
    assert mean == pytest.approx(1, abs=4 * error)


def test_a_wrong_weight_would_be_noticed() -> None:
    class Wrong(SequentialMonteCarlo):
        """Weighs as if M drew Δ."""

        def _moved(self, run, here, sigma, share):
            there, gain = super()._moved(run, here, sigma, share)
            step = (there.x - here.x + share * here.residual / here.sigma**2).flatten(1)
            noise = step.square().sum(1).view_as(gain) / share
            back = (there.x - here.x).flatten(1).square().sum(1).view_as(gain) / share
            energies = (here.energy - there.energy).view_as(gain)
            return there, energies + 0.5 * (noise - back)

    mean, error = normaliser("sum of mixtures", Wrong)
    assert abs(mean - 1) > 8 * error


def test_a_gauge_of_each_level_changes_nothing_but_the_normaliser() -> None:
    class Shifted(Sum):
        def combine(self, energies: Tensor) -> tuple[Tensor, Tensor]:
            energy, slopes = super().combine(energies)
            return energy + 30.0, slopes

    plain, shifted = (
        SequentialMonteCarlo(SIGMAS, particles=200)(kind(EXPERTS), seeds=range(200))
        for kind in (Sum, Shifted)
    )
    assert_close(shifted.samples, plain.samples)
    assert_close(shifted.trace.log_normalizer, plain.trace.log_normalizer - 30.0)


def test_updates_keep_the_density_and_move_copies_apart() -> None:
    energy = COMPOSED["cold mixture"]
    still, moved = (drawn(energy, updates=updates, step_size=0.5) for updates in (0, 2))
    assert len(still.samples.unique()) < COUNT < len(moved.samples.unique()) + 0.1 * COUNT
    x, mass = quadrature(energy)
    share = mass[x < 0].sum() / mass.sum()
    assert_close((moved.samples[:, 0] < 0).double().mean(), share, rtol=0, atol=0.02)


def test_a_final_denoising_takes_the_noise_of_the_composition() -> None:
    """Three points on top of each other at noise σ/√3: one denoising leads to the point."""
    energy = Sum([modes(0.7, std=0.0)] * 3)
    result = SequentialMonteCarlo(SIGMAS, True, particles=8)(energy, seeds=range(8))
    assert_close(result.samples, torch.full((8, 1), 0.7).double())


def test_populations_do_not_depend_on_each_other() -> None:
    sampler = SequentialMonteCarlo(SIGMAS, True, particles=8, updates=1, threshold=1.0)
    energy = COMPOSED["sum of mixtures"]
    seeds = [*range(8), *range(100, 108), *range(40, 48)]
    whole = sampler(energy, seeds=seeds)
    parts = [sampler(energy, seeds=seeds[i : i + 8]) for i in (0, 8, 16)]
    assert_close(torch.cat([part.samples for part in parts]), whole.samples)
    for name, values in whole.trace.arrays().items():
        if name != "sigma":
            assert_close(torch.cat([p.trace.arrays()[name] for p in parts], 1), values)


def test_the_record_follows_the_lines_of_the_last_samples() -> None:
    points: list[Tensor] = []
    energy = COMPOSED["cold mixture"]
    sampler = SequentialMonteCarlo(SIGMAS, True, particles=30, updates=1, threshold=1.0)
    result = sampler(energy, seeds=range(60), on_step=lambda _, point: points.append(point.x))
    trace, first = result.trace, torch.arange(60) // 30 * 30
    assert len(trace.ancestor[0, :30].unique()) < 30
    assert trace.ancestor[-1].tolist() == [*range(30)] * 2
    for x, places, sigma, energies in zip(
        [*points, result.samples], trace.ancestor, trace.sigma, trace.energy, strict=True
    ):
        assert_close(energies, energy(x[first + places], float(sigma)))
    assert_close(trace.descent + trace.landscape, trace.free_energy.diff(dim=0))


def test_what_it_came_to_is_told() -> None:
    sampler = SequentialMonteCarlo(SIGMAS, particles=50)
    result = sampler(COMPOSED["cold mixture"], seeds=range(100))
    report = sampler.diagnose(result.trace)
    assert (report.populations, report.particles) == (2, 50)
    assert report.ess == pytest.approx(result.trace.ess.min().item())
    assert 1 <= report.founders <= report.distinct <= 50
    halves = [len(result.samples[i : i + 50].unique()) for i in (0, 50)]
    assert report.distinct == min(halves)
    _, mass = quadrature(COMPOSED["cold mixture"])
    assert report.log_normalizer == pytest.approx(float(mass.sum().log()), abs=0.5)
    assert "2 populations of 50" in str(report) and report.as_dict()["particles"] == 50


class Nowhere(GaussianMixture):
    """An energy that is not finite below σ = 1."""

    def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        return super().forward(x, sigma) + torch.where(sigma < 1, torch.nan, 0.0)


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "particles": (lambda: SequentialMonteCarlo(SIGMAS, particles=0), "particles is 0"),
    "updates": (lambda: SequentialMonteCarlo(SIGMAS, updates=-1), "updates -1"),
    "threshold": (lambda: SequentialMonteCarlo(SIGMAS, threshold=1.5), "threshold 1.5"),
    "parts of a population": (
        lambda: SequentialMonteCarlo(SIGMAS, particles=8)(EXPERTS[0], seeds=range(12)),
        "12 samples are no whole number of populations of 8",
    ),
    "nothing to start from": (
        lambda: SequentialMonteCarlo(SIGMAS, particles=8)(
            Sum([EXPERTS[0], Negation(EXPERTS[1])]), seeds=range(8)
        ),
        "multiplies 0 densities",
    ),
    "starting points": (
        lambda: SequentialMonteCarlo(SIGMAS, particles=1)(
            EXPERTS[0], torch.zeros(1, 1).double(), seeds=[0]
        ),
        "no x_init",
    ),
    "two labels in a population": (
        lambda: SequentialMonteCarlo(SIGMAS, particles=2)(
            Classes(), seeds=range(4), label=torch.tensor([0, 0, 0, 1])
        ),
        "needs one label",
    ),
    "no weight": (
        lambda: SequentialMonteCarlo(SIGMAS, particles=2)(
            Nowhere(torch.zeros(1, 1).double(), 1.0), seeds=range(2)
        ),
        "lost their weight",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_sentence(mistake: str) -> None:
    build, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message):
        build()


def test_a_baseline_has_no_weights() -> None:
    model = build_denoiser(MLP((1,), width=8), 0.5, "unconstrained")
    with pytest.raises(NoEnergyError):
        SequentialMonteCarlo(SIGMAS, particles=1)(model, seeds=[0])
