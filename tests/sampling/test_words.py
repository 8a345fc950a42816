"""A certificate in words: what it claims and does not, what was counted, and what is rounding."""

import math
from dataclasses import replace

import pytest
import torch

from energydiff.energies import GaussianMixture
from energydiff.sampling import Certificate, Euler, certify, karras_sigmas
from energydiff.sampling.words import caption, verdict


@pytest.fixture(scope="module")
def exact() -> Certificate:
    """Of an exact energy under Euler's method: 6 steps of 3 samples."""
    energy = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 0.1)
    result = Euler(karras_sigmas(6, 0.02, 10.0))(energy, seeds=range(3))
    return certify(result.trace)


def test_the_first_line_claims_descent_and_says_nothing_of_quality(exact: Certificate) -> None:
    first, _ = str(exact).splitlines()
    assert first == (
        "The certificate holds: V fell, or stayed within rounding, at every step (proved by the"
        " construction); this says that each step descended, and nothing of the quality of the"
        " samples."
    )


def test_the_second_line_counts_and_says_how_its_counts_fit_together(exact: Certificate) -> None:
    record = replace(
        exact, landscape_rises=5, tolerance=112.0, tolerance_sigma=80.0, final_tolerance=3e-5
    )
    _, second = str(record).splitlines()
    assert second == (
        "Of 18 steps (6 of each of 3 samples) 0 raised V, in 0 of the samples. A step's change of V"
        " is the sum of two parts, and one may rise where the other falls by more: the descent"
        " part, the move at a fixed σ, rose at 0 of them, and the landscape part, the change of σ"
        " at a fixed x, at 5. A rise is what floating-point rounding cannot explain: V is a"
        " difference of terms that grow with σ², so up to 112 is put down to rounding at σ = 80.0,"
        " and 3.0·10⁻⁵ in the last step."
    )


def test_one_that_fails_says_where(exact: Certificate) -> None:
    record = replace(
        exact,
        holds=False,
        claim="observed",
        rises=2,
        rising_samples=1,
        worst_rise=0.25,
        worst_sigma=0.5,
        worst_sample=2,
        worst_step=4,
    )
    assert str(record).splitlines()[0].replace("\N{NO-BREAK SPACE}", " ") == (
        "The certificate fails: V rose at 2 of 18 steps (11 %), at worst by 0.250 at σ = 0.500"
        " (sample 2, step 4); this says that not every step descended, and nothing of the quality"
        " of the samples."
    )
    assert "at worst to a value that is not finite" in str(replace(record, worst_rise=math.inf))
    guarded = str(replace(record, claim="enforced"))
    assert "those at which the sampler could not enforce that it falls, at worst by" in guarded


def test_a_stochastic_sampler_claims_nothing(exact: Certificate) -> None:
    record = replace(exact, holds=None, claim="stochastic", rises=9)
    told = "makes no claim: noise was added, which raises V, and V rose at 9 of 18 steps"
    assert verdict(record).startswith(told) and "nothing of the quality" in verdict(record)
    assert caption(record).startswith("V rose at 9 of 18 steps of 3 samples")


def test_what_falls_may_be_another_energy(exact: Certificate) -> None:
    assert verdict(exact, "E").startswith("holds: E fell") and " V " not in verdict(exact, "E")
