"""Samplers by name: what there is, what each takes, and what is said of what there is not."""

import pytest
import torch
from torch.testing import assert_close

from energydiff import registry
from energydiff.energies import GaussianMixture
from energydiff.errors import UserError
from energydiff.sampling import (
    HMC,
    Armijo,
    Churn,
    DPMSolver2M,
    Guarded,
    Heun,
    Sampler,
    karras_sigmas,
    make_sampler,
    sampler_class,
)
from energydiff.sampling.run import Point, Run

SIGMAS = karras_sigmas(4, 0.1, 5.0)
NAMES = (
    *("ancestral", "armijo", "churn", "dpm_solver_2m", "euler", "gradient_descent"),
    *("heun", "hmc", "langevin", "mala", "nesterov", "smc"),
)


class Sluggish(Sampler):
    """Euler's method that goes only a part of each step."""

    def __init__(self, sigmas, final_denoise=False, *, part: float) -> None:
        super().__init__(sigmas, final_denoise)
        self.part = part

    def step(self, run: Run, here: Point, sigma: float) -> torch.Tensor:
        return here.x - self.part * (1 - sigma / here.sigma) * here.residual


class Forgetful(Sampler):
    """Writes no step."""


def test_everything_there_is_has_its_name() -> None:
    found = {cls.name for cls in registry.known(Sampler).values() if cls is not Guarded}
    assert found == set(NAMES)
    assert {sampler_class(name).name for name in NAMES} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_made_by_its_name_bears_it(name: str) -> None:
    descent = name in ("armijo", "gradient_descent", "nesterov")
    sampler = make_sampler(name, None if descent else SIGMAS)
    assert sampler.name == name and sampler.final_denoise is not descent
    if not sampler.stochastic:
        guarded = make_sampler(f"guarded_{name}", None if descent else SIGMAS)
        assert isinstance(guarded, Guarded) and guarded.name == f"guarded_{name}"


def test_it_is_the_sampler_that_one_would_have_made() -> None:
    energy = GaussianMixture(torch.randn(4, 2).double(), 0.3)
    made = make_sampler("guarded_dpm_solver_2m", SIGMAS, final_denoise=False, c=0.5, total=True)
    own = Guarded(DPMSolver2M(SIGMAS), c=0.5, total=True)
    one, other = made(energy, seeds=range(50)), own(energy, seeds=range(50))
    assert torch.equal(one.samples, other.samples)
    assert one.trace is not None and one.trace.digest == other.trace.digest


def test_options_are_those_of_its_constructor() -> None:
    hmc = make_sampler("hmc", SIGMAS, leaps=3, updates=2, step_size=1)
    assert isinstance(hmc, HMC) and (hmc.leaps, hmc.step_size) == (3, 1)
    assert len(hmc.sigmas) == 2 * len(SIGMAS) + 1
    churn = make_sampler("churn", SIGMAS, churn=2.0)
    assert isinstance(churn, Churn) and churn.churn == 2.0
    armijo = make_sampler("armijo", None, steps=7, c=0.3)
    assert isinstance(armijo, Armijo) and armijo.c == 0.3 and len(armijo.sigmas) == 8


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> str:
    """This module as somebody would import their own."""
    import sys
    from types import ModuleType

    module = ModuleType("mine")
    module.Sluggish, module.Forgetful = Sluggish, Forgetful  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", module)
    return "mine"


def test_a_sampler_of_ones_own_goes_by_its_import_path(mine: str) -> None:
    energy = GaussianMixture(torch.zeros(1, 2).double(), 0.3)
    whole = make_sampler(f"{mine}.Sluggish", SIGMAS, part=1.0)
    expected = make_sampler("euler", SIGMAS)(energy, seeds=range(5))
    assert_close(whole(energy, seeds=range(5)).samples, expected.samples)
    guarded = make_sampler(f"guarded_{mine}.Sluggish", SIGMAS, part=30.0, c=0.2)
    assert guarded.name == f"guarded_{Sluggish.name}"
    trace = guarded(energy, seeds=range(5)).trace
    assert trace is not None and trace.claim == "enforced" and bool((trace.descent <= 0).all())


def test_an_heir_does_not_bear_its_parents_name() -> None:
    class Better(Heun):
        pass

    assert Better.name == f"{__name__}.{Better.__qualname__}" != Heun.name


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rk4", {}, "choose ancestral, armijo, .*nesterov, smc, guarded_ before one"),
        ("Heun", {}, "which this package does not have"),
        ("nowhere.Mine", {}, "--import nowhere"),
        ("torch.Tensor", {}, "no Sampler"),
        ("mine.Forgetful", {}, "has to define step"),
        ("mine.Sluggish", {}, "'part'; its options are part"),
        ("heun", {"leaps": 3}, "heun: .*'leaps'; its options are none"),
        ("hmc", {"noise": 3}, "'noise'; its options are updates, step_size, leaps"),
        ("guarded_heun", {"d": 3}, "'d'; its options are c, total"),
        ("hmc", {"leaps": 2.5}, "leaps of hmc must be int, got 2.5"),
        ("churn", {"churn": "much"}, "churn of churn must be float, got 'much'"),
        ("guarded_heun", {"total": 1}, "total of guarded_heun must be bool, got 1"),
        ("guarded_mala", {}, "mala cannot be guarded"),
        ("armijo", {}, "armijo knows no noise levels"),
        ("guarded_nesterov", {}, "guarded_nesterov knows no noise levels"),
        ("hmc", {"leaps": 0}, "leaps is 0"),
    ],
)
def test_a_mistake_is_a_sentence(name: str, options: dict, message: str, mine: str) -> None:
    with pytest.raises(UserError, match=message):
        make_sampler(name, SIGMAS, **options)


def test_who_goes_down_noise_needs_levels() -> None:
    with pytest.raises(UserError, match="heun needs sigmas"):
        make_sampler("heun", None)
