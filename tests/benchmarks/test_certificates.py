"""The table of what is proved, enforced and observed is what the samplers claim."""

from pathlib import Path

import pytest
import torch

from benchmarks import certificates, natural
from energydiff.sampling import certify

ROOT = Path(__file__).parents[2]


def test_the_page_has_every_configuration_with_what_is_claimed_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    table = certificates.claims_table()
    assert "\n".join(table) in (ROOT / "docs/certificates.md").read_text()
    assert sum("| proved |" in line for line in table) == 2  # closed forms and natural energies


def test_counts_are_of_v_for_each_sampler_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "STEPS", (2,))
    found = certificates.counts(ROOT / "pretrained/digits_energy_unet", 2)
    assert found == ["0 of 6"] * 4


@pytest.mark.parametrize("parametrization", ["natural", "convex", "inner_product"])
def test_a_cost_is_that_of_a_step_and_of_a_call(parametrization: str) -> None:
    model = certificates.tiny(parametrization)
    natural.training_step(model)()
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
    natural.denoiser_call(model)()
    assert not model.training and torch.is_grad_enabled()


def test_every_arm_is_a_configuration() -> None:
    for arms in natural.ARMS.values():
        assert all((ROOT / f"configs/{arm.config}.yaml").is_file() for arm in arms)


def test_the_guard_of_an_arm_claims_to_enforce_the_total() -> None:
    model = certificates.tiny("natural").eval()
    plain, _, _, total = certificates.samplers(3, 0.1, 5.0)
    assert plain.claims(model).total == "proved" and total.claims(model).total == "enforced"
    assert certify(total(model, seeds=range(2)).trace).holds
