"""Langevin, MALA and HMC: the right distribution, and acceptance as the theory of each has it."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.energies import Denoiser, EmpiricalData, GaussianMixture, ScoreSum
from energydiff.energies.base import Energy, Sigma
from energydiff.errors import NoEnergyError, UserError
from energydiff.potentials import MLP
from energydiff.sampling import HMC, MALA, Langevin, Sampler, certify, karras_sigmas

SIGMA = 0.4
MEANS = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, -1.2]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
MIXTURE = GaussianMixture(MEANS, 0.3, WEIGHTS)


def exact_draws(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    which = torch.multinomial(WEIGHTS, count, replacement=True, generator=generator)
    spread = math.sqrt(0.3**2 + SIGMA**2)
    return MEANS[which] + spread * torch.randn(count, 2, generator=generator).double()


REFERENCE = exact_draws(2000, seed=999)


def energy_distance(x: Tensor) -> float:
    """2E‖X − Y‖ − E‖X − X'‖ to exact draws Y, but for the constant E‖Y − Y'‖ (Székely & Rizzo)."""
    within = torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))
    return float(2 * torch.cdist(x, REFERENCE).mean() - within)


@pytest.fixture(scope="module")
def null() -> Tensor:
    """The distances of exact draws, as many as the chains."""
    return torch.tensor([energy_distance(exact_draws(800, seed)) for seed in range(200)])


def chain(sampler: Sampler, mixture: Energy = MIXTURE, count: int = 800) -> Tensor:
    """Every chain starts at one mode: the weights have to be found."""
    start = MEANS[1].expand(count, 2)
    return sampler(mixture, start, seeds=range(count), trace=False).samples


@pytest.mark.parametrize(
    "sampler",
    [MALA(SIGMA, updates=100, step_size=0.8), HMC(SIGMA, updates=25, step_size=0.7, leaps=4)],
    ids=["MALA", "HMC"],
)
def test_a_mixture_has_the_right_weights(sampler: Sampler, null: Tensor) -> None:
    """As near to exact draws as 200 sets of exact draws are."""
    assert energy_distance(chain(sampler)) < null.max()


def test_it_would_be_seen_if_the_weights_were_wrong(null: Tensor) -> None:
    """The test above can fail: too few moves, other weights, another temperature."""
    mala = MALA(SIGMA, updates=100, step_size=0.8)
    wrong = {
        "moves": chain(MALA(SIGMA, updates=5, step_size=0.8)),
        "weights": chain(mala, GaussianMixture(MEANS, 0.3, torch.tensor([0.45, 0.4, 0.15]))),
        "temperature": chain(mala, GaussianMixture(MEANS, 0.6, WEIGHTS)),
    }
    limit = null.max()
    assert {name: energy_distance(x) > limit for name, x in wrong.items()} == dict.fromkeys(
        wrong, True
    )


class WrongProposal(MALA):
    """The mistake of a public library: a proposal density that is not that of the proposal."""

    def _log_density(self, start, end):
        return super()._log_density(start, end) / 2


def second_moment(sampler: Sampler, energy: Energy, count: int = 1000) -> float:
    start = energy.means.expand(count, *energy.shape).clone()
    x = sampler(energy, start, seeds=range(count), trace=False).samples
    return x.square().mean().item()


def test_mala_is_exact_at_any_step_and_langevin_is_not() -> None:
    """On N(0, v): unadjusted, the variance is v/(1 − δσ²/2v) exactly; accepted, it is v."""
    energy = GaussianMixture(torch.zeros(1, 4).double(), 0.5)
    variance, sigma, step = 0.5**2 + 1.0, 1.0, 0.8
    tolerance = 4 * math.sqrt(2 / 4000)
    langevin = second_moment(Langevin(sigma, updates=40, step_size=step), energy)
    biased = variance / (1 - step * sigma**2 / (2 * variance))
    assert langevin == pytest.approx(biased, rel=tolerance)
    mala = second_moment(MALA(sigma, updates=60, step_size=step), energy)
    assert mala == pytest.approx(variance, rel=tolerance)
    assert abs(biased / variance - 1) > 3 * tolerance


def test_a_wrong_proposal_density_would_be_noticed() -> None:
    energy = GaussianMixture(torch.zeros(1, 4).double(), 0.5)
    wrong = second_moment(WrongProposal(1.0, updates=60, step_size=0.8), energy)
    assert abs(wrong / 1.25 - 1) > 4 * math.sqrt(2 / 4000)
    assert abs(drift_of_energy(WrongProposal)) > 4


@pytest.mark.parametrize("sampler", [MALA, HMC])
def test_detailed_balance(sampler: type[Sampler]) -> None:
    """From exact draws, flows between two regions are equal both ways at every single move."""
    count = 4000
    x = exact_draws(count, 5)
    moved = sampler(SIGMA, updates=1, step_size=0.7)(
        MIXTURE, x, seeds=range(count), trace=False
    ).samples
    left, right = x[:, 0] < 0, moved[:, 0] < 0
    out, back = int((left & ~right).sum()), int((~left & right).sum())
    assert out > 60
    assert abs(out - back) < 4 * math.sqrt(out + back)
    assert abs(drift_of_energy(sampler)) < 4


def drift_of_energy(sampler: type[Sampler], count: int = 4000) -> float:
    """Mean change of E in one move from exact draws, in standard errors."""
    x = exact_draws(count, 5)
    run = sampler(SIGMA, updates=1, step_size=0.7)
    change = MIXTURE(run(MIXTURE, x, seeds=range(count), trace=False).samples, SIGMA) - MIXTURE(
        x, SIGMA
    )
    return float(change.mean() / change.std() * math.sqrt(count))


@pytest.mark.parametrize("sampler", [MALA, HMC])
def test_short_steps_are_all_accepted_and_long_ones_not(sampler: type[Sampler]) -> None:
    def refused(step: float) -> float:
        result = sampler(SIGMA, updates=5, step_size=step)(
            MIXTURE, exact_draws(300, 1), seeds=range(300)
        )
        return certify(result.trace).fallbacks / 1500

    rates = [refused(step) for step in (1e-3, 0.5, 4.0)]
    assert rates[0] < 0.005 < rates[1] < rates[2] and rates[2] > 0.5


def test_hmc_conserves_its_hamiltonian_to_second_order() -> None:
    """Halving the leap quarters the error of log acceptance."""

    def worst(leap: float) -> float:
        ratios = []

        class Watched(HMC):
            def propose(self, run, here):
                proposal, log_ratio = super().propose(run, here)
                ratios.append(log_ratio.abs().max())
                return proposal, log_ratio

        Watched(SIGMA, updates=1, step_size=leap, leaps=round(0.8 / leap))(
            MIXTURE, exact_draws(200, 3), seeds=range(200), trace=False
        )
        return float(ratios[0])

    assert worst(0.1) / worst(0.05) == pytest.approx(4, rel=0.15)


def test_refusals_are_per_sample() -> None:
    """A sample that would go where E is infinite stays; the others move."""

    class Half(EmpiricalData):
        def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
            return torch.where(x[:, 0] > 0, super().forward(x, sigma, label), torch.inf)

        def gradient(self, x, sigma, label):
            energy, grad = super().gradient(x, sigma, label)
            return torch.where(x[:, 0] > 0, energy, torch.inf), grad

    x = torch.full((200, 2), 0.3).double()
    result = MALA(1.0, updates=20, step_size=0.3)(
        Half(torch.zeros(1, 2).double()), x, seeds=range(200)
    )
    assert bool((result.samples[:, 0] > 0).all())
    assert result.trace is not None and result.trace.fallbacks is not None
    per_step = (result.trace.fallbacks > 0).double().mean(1)
    assert bool(((per_step > 0.1) & (per_step < 0.9)).all())


@pytest.mark.parametrize("sampler", [Langevin, MALA, HMC])
def test_annealed_down_a_grid(sampler: type[Sampler]) -> None:
    """Levels repeat, the trace follows them, and the samples end in the density at σ_min."""
    sigmas = karras_sigmas(4, SIGMA, 5.0)
    settings = {"step_size": 0.4, "updates": 12}
    result = sampler(sigmas, **settings)(MIXTURE, seeds=range(400))
    assert result.trace is not None
    expected = [*sigmas.repeat_interleave(12).tolist(), SIGMA]
    assert result.trace.sigma.tolist() == expected
    same = torch.tensor(expected).diff() == 0
    assert not bool(result.trace.landscape[same].any())
    assert bool((result.trace.landscape[~same] < 0).all())
    exact = MIXTURE(exact_draws(400, 8), SIGMA)
    tolerance = 4 * (exact.std() / 20).item() * math.sqrt(2)
    tolerance += 0.3 if sampler is Langevin else 0  # its bias at this step
    assert MIXTURE(result.samples, SIGMA).mean().item() == pytest.approx(
        exact.mean().item(), abs=tolerance
    )


def test_one_chain_stays_itself_when_the_batch_changes() -> None:
    run = MALA(SIGMA, updates=10, step_size=0.5)
    together = run(MIXTURE, seeds=range(20)).samples
    alone = run(MIXTURE, seeds=[7]).samples
    assert_close(alone[0], together[7])


def test_the_noise_of_a_chain_is_not_its_start() -> None:
    """Starting noise and later noise are different draws of one seed."""
    point = GaussianMixture(torch.zeros(1, 500).double(), 0.0)
    starts: list[Tensor] = []
    run = Langevin(1.0, updates=1, step_size=1.0)  # x' = D + σ√2 z = σ√2 z
    end = run(point, seeds=[3], on_step=lambda _, here: starts.append(here.x)).samples
    assert abs(torch.corrcoef(torch.cat([starts[0], end]))[0, 1].item()) < 0.2


class Turning(Denoiser):
    """The field of a Gaussian of variance 1 with a rotation added, which is no gradient."""

    shape = (2,)

    def __init__(self, turn: float) -> None:
        super().__init__()
        self.turn = turn

    def denoise(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        turned = torch.stack([-x[:, 1], x[:, 0]], 1)
        return x + torch.as_tensor(sigma) ** 2 * (-x + self.turn * turned)


def test_the_line_integral_of_a_gradient_is_the_fall_of_the_energy() -> None:
    """To the order of the trapezoidal rule, so that all but a few decisions are the same."""
    start = exact_draws(400, 4)
    by_energy = MALA(SIGMA, updates=5, step_size=0.8)(MIXTURE, start, seeds=range(400))

    def differ(line: int) -> float:
        by_line = MALA(SIGMA, updates=5, step_size=0.8, line=line)
        found = by_line(ScoreSum([MIXTURE], [1.0], [-1]), start, seeds=range(400))
        apart = (found.samples - by_energy.samples).abs().amax(1) > 1e-6
        return apart.double().mean().item()

    assert differ(2) > differ(5) and differ(33) < 0.01


def test_a_line_costs_its_inner_points() -> None:
    result = MALA(SIGMA, updates=7, line=5)(Turning(0.0), torch.zeros(3, 2), seeds=range(3))
    assert result.nfe == 7 * 4 + 1 and result.trace is None


def test_a_field_that_turns_is_accepted_by_what_depends_on_the_way() -> None:
    """The chain goes round: flows between halves of a ring differ, which no density allows."""

    def round_and_back(turn: float) -> tuple[int, int]:
        x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)).double()
        chain = MALA(1.0, updates=40, step_size=0.2, line=3)
        x = chain(Turning(turn), x, seeds=range(4000)).samples
        moved = MALA(1.0, updates=1, step_size=0.2, line=3)(
            Turning(turn), x, seeds=range(4000, 8000)
        ).samples
        upper, later = x[:, 1] > 0, moved[:, 1] > 0  # crossings of the right half-axis
        right = (x[:, 0] > 0) & (moved[:, 0] > 0)
        return int((~upper & later & right).sum()), int((upper & ~later & right).sum())

    out, back = round_and_back(0.0)
    assert abs(out - back) < 4 * math.sqrt(out + back)
    out, back = round_and_back(1.5)
    assert abs(out - back) > 6 * math.sqrt(out + back)


def test_a_baseline_has_nothing_to_accept_by() -> None:
    with pytest.raises(NoEnergyError):
        MALA(1.0)(build_denoiser(MLP((2,), width=8), 0.5, "unconstrained"), seeds=[0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MALA(0.0), "sigma must be positive"),
        (lambda: MALA(1.0, updates=0), "updates is 0"),
        (lambda: Langevin(1.0, step_size=-1.0), "step_size -1.0"),
        (lambda: HMC(1.0, leaps=0), "leaps is 0"),
        (lambda: MALA(1.0, line=1), "line is 1"),
    ],
)
def test_settings_that_are_none_are_refused(build, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()
