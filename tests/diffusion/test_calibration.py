"""The gauge after calibration: nothing where nothing is missing, and what was missing where it is.

The data are N(0, σ_d² I), for which an untrained energy (φ = 0) is exact, constant included. A
potential that adds g(log σ) to the energy is what score matching cannot see.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from energydiff.denoisers import EnergyDenoiser
from energydiff.diffusion import calibrate_gauge
from energydiff.energies import GaussianMixture
from energydiff.potentials import MLP, InnerProduct
from energydiff.sampling import Certificate, Euler, certify, karras_sigmas

DIM, STD = 4, 0.6
LOW, HIGH = 0.05, 10.0
EVALUATIONS = 8_192
# σ of the calibrated offset at σ_min: one target per evaluation, of variance at most 2d.
SAMPLING_ERROR = math.log(HIGH / LOW) * math.sqrt(2 * DIM / EVALUATIONS)


class Shifted(InnerProduct):
    """φ = 0 but for a part without x, which adds g(log σ) to the energy."""

    def __init__(self, shift: Callable[[Tensor], Tensor]) -> None:
        super().__init__(MLP((DIM,), width=8, depth=1))
        self.shift = shift

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        log_sigma = 4 * c
        return super().forward(u, c, label) - log_sigma.exp() / STD * self.shift(log_sigma)


def wave(log_sigma: Tensor) -> Tensor:
    return 3 * torch.sin(log_sigma) + 2


def slide(log_sigma: Tensor) -> Tensor:
    """Falls with σ so fast that V rises as the noise falls."""
    return 30 * (math.log(HIGH) - log_sigma)


def data(count: int = 1_500) -> Tensor:
    return STD * torch.randn(count, DIM)


def calibrated(shift: Callable[[Tensor], Tensor], **options: int) -> EnergyDenoiser:
    energy = EnergyDenoiser(Shifted(shift), STD).eval()
    calibrate_gauge(energy, data(), LOW, HIGH, **{"evaluations": EVALUATIONS, **options})
    return energy


@pytest.fixture(scope="module", params=[torch.zeros_like, wave, slide], ids=lambda g: g.__name__)
def energy(request: pytest.FixtureRequest) -> EnergyDenoiser:
    torch.manual_seed(0)
    return calibrated(request.param)


def certificate(energy: EnergyDenoiser) -> Certificate:
    sampler = Euler(karras_sigmas(12, LOW, HIGH), final_denoise=True)
    return certify(sampler(energy, seeds=range(16)).trace)


def test_an_energy_that_is_right_keeps_its_gauge() -> None:
    energy = calibrated(torch.zeros_like)
    assert energy.gauge.offset.abs().max().item() < 4 * SAMPLING_ERROR


def test_a_shift_of_the_energy_is_undone(energy: EnergyDenoiser) -> None:
    """E is the exact energy to within tenths of a nat at every σ."""
    exact = GaussianMixture(torch.zeros(1, DIM), STD)
    for sigma in (LOW, 0.2, 1.0, 4.0, HIGH):
        x = data(8) + sigma * torch.randn(8, DIM)
        assert (energy(x, sigma) - exact(x, sigma)).abs().max().item() < 4 * SAMPLING_ERROR


def test_the_noise_derivative_has_mean_zero_over_noisy_data(energy: EnergyDenoiser) -> None:
    """E_{x ~ p_σ}[∂E/∂log σ] = 0 for a true density; before, it was the slope of the shift."""
    log_sigma = torch.empty(4_000).uniform_(math.log(LOW), math.log(HIGH))
    sigma = log_sigma.exp()
    x = data(4_000) + sigma[:, None] * torch.randn(4_000, DIM)
    assert energy.noise_derivative(x, sigma).mean().item() == pytest.approx(0, abs=0.1)


def test_v_rises_before_and_falls_after() -> None:
    before = certificate(EnergyDenoiser(Shifted(slide), STD).eval())
    # At high σ, V amplifies the sampling error of E: this many leave no rise for any seed.
    after = certificate(calibrated(slide, evaluations=16 * EVALUATIONS, batch_size=4_096))
    assert before.landscape_rises > 0 and not before.holds
    assert after.landscape_rises == 0 and after.holds


def test_an_earlier_gauge_is_forgotten() -> None:
    """Calibrating from a wrong gauge is calibrating from none."""
    clean = data()
    energy = EnergyDenoiser(Shifted(wave), STD).eval()
    calibrate_gauge(energy, clean, LOW, HIGH, evaluations=512)
    once = energy.gauge.offset.clone()
    energy.gauge.offset.add_(torch.randn(len(once)))
    calibrate_gauge(energy, clean, LOW, HIGH, evaluations=512)
    assert torch.equal(energy.gauge.offset, once)


def test_the_batch_size_does_not_matter() -> None:
    torch.manual_seed(0)
    one = calibrated(wave, evaluations=512).gauge.offset
    torch.manual_seed(0)
    other = calibrated(wave, evaluations=512, batch_size=100).gauge.offset
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_only_the_gauge_changes() -> None:
    """Weights, training mode and what requires a gradient stay as they were."""
    energy = EnergyDenoiser(Shifted(wave), STD).train()
    before = {name: p.clone() for name, p in energy.named_parameters()}
    calibrate_gauge(energy, data(64), LOW, HIGH, evaluations=64)
    assert energy.training
    assert all(p.requires_grad and p.grad is None for p in energy.parameters())
    assert all(torch.equal(p, before[name]) for name, p in energy.named_parameters())


def test_the_score_does_not_change() -> None:
    energy = EnergyDenoiser(Shifted(wave), STD).eval()
    x = torch.randn(3, DIM)
    before = energy.score(x, 0.7)
    calibrate_gauge(energy, data(64), LOW, HIGH, evaluations=64)
    assert torch.equal(before, energy.score(x, 0.7))


def test_progress_counts_up_to_the_whole() -> None:
    seen: list[int] = []
    energy = EnergyDenoiser(Shifted(wave), STD)
    calibrate_gauge(energy, data(64), LOW, HIGH, evaluations=640, on_batch=seen.append)
    assert seen == [256, 512, 640]


def test_every_interval_sees_all_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where their number divides the number of images: 64 intervals, 4,096 images."""
    seen: list[torch.Tensor] = []
    energy = EnergyDenoiser(Shifted(wave), STD)

    def derivative(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(x[:, 0].round().long())
        return torch.zeros(len(x))

    monkeypatch.setattr(energy, "noise_derivative", derivative)
    numbered = torch.arange(4096.0)[:, None].expand(4096, DIM) * 1e3
    calibrate_gauge(energy, numbered, LOW, LOW * 1.001, evaluations=16_384)
    rows = (torch.cat(seen) / 1e3).round()
    for interval in (0, 1, 63):
        assert len(rows[interval::64].unique()) == 256
