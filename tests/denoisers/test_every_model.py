"""One set of properties for every backbone × parametrization × labels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import (
    EnergyDenoiser,
    NaturalEnergy,
    UnconstrainedDenoiser,
    build_denoiser,
)
from energydiff.energies import Energy, GaussianMixture
from energydiff.errors import UserError
from energydiff.potentials import (
    MLP,
    EnergyTransformer,
    EnergyUNet,
    InputConvex,
    NaturalConvex,
    NaturalConvexConv,
    Network,
    PublishedEnergyTransformer,
    TokenNetwork,
    Transformer,
    UNet,
)

SIGMA_DATA = 0.6

BACKBONES: dict[str, Callable[[int], Network]] = {
    "mlp": lambda classes: MLP((5,), width=8, depth=2, num_classes=classes),
    "mlp-image": lambda classes: MLP((3, 2, 2), width=8, depth=1, num_classes=classes),
    "unet-1": lambda classes: UNet(
        (1, 4, 4), 6, (1, 2), 1, attention_resolutions=(2,), head_width=6, num_classes=classes
    ),
    "unet-3": lambda classes: UNet(
        (3, 4, 2), 12, (1, 1), 1, attention_resolutions=(4, 2), num_classes=classes
    ),
    "transformer-1": lambda classes: Transformer(
        (1, 4, 4), width=8, depth=2, heads=2, mlp_ratio=2, num_classes=classes
    ),
    "transformer-3": lambda classes: Transformer(
        (3, 4, 2), width=6, depth=1, heads=1, mlp_ratio=2, num_classes=classes
    ),
    "tokens": lambda classes: TokenNetwork(
        (1, 4, 4),
        width=8,
        trunk=("convolution", "attention", "feedforward"),
        heads=2,
        num_classes=classes,
    ),
}
SCALARS: dict[str, Callable[[int], Network]] = {
    "energy-unet": lambda classes: EnergyUNet(
        (3, 4, 2), 8, (1, 2), 1, attention_resolutions=(2,), head_width=8, num_classes=classes
    ),
    "energy-transformer": lambda classes: EnergyTransformer(
        (1, 4, 4), width=8, heads=2, num_classes=classes
    ),
    "published-energy-transformer": lambda classes: PublishedEnergyTransformer(
        (1, 4, 4), width=8, depth=2, heads=2, self_excluded=True, num_classes=classes
    ),
}
CONVEX: dict[str, Callable[[int], Network]] = {
    "input-convex": lambda classes: InputConvex((5,), width=8, depth=2, num_classes=classes),
}

NATURAL: dict[str, Callable[[int], Network]] = {
    "natural": lambda classes: NaturalConvex((5,), 4, 3, num_classes=classes),
    "natural-conv": lambda classes: NaturalConvexConv((3, 4, 2), 4, 3, num_classes=classes),
}

Model = EnergyDenoiser | UnconstrainedDenoiser | NaturalEnergy


@dataclass(frozen=True)
class Case:
    backbone: str
    parametrization: str
    classes: int

    def fresh(self) -> Model:
        backbone = (BACKBONES | SCALARS | CONVEX | NATURAL)[self.backbone](self.classes)
        return build_denoiser(backbone, SIGMA_DATA, self.parametrization).double().eval()

    def perturbed(self) -> Model:
        """Zero-initialised layers would hide whatever lies behind them."""
        model = self.fresh()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        return model

    def label(self, batch: int = 3) -> Tensor | None:
        return torch.arange(batch) % 3 - 1 if self.classes else None

    def __str__(self) -> str:
        return f"{self.backbone}-{self.parametrization}-{self.classes}"


FROM_BACKBONES = [
    Case(b, p, c) for b in BACKBONES for p in ("inner_product", "sum") for c in (0, 3)
]
ENERGIES = FROM_BACKBONES + [
    Case(b, parametrization, c)
    for parametrization, networks in (("scalar", SCALARS), ("convex", CONVEX), ("natural", NATURAL))
    for b in networks
    for c in (0, 3)
]
BASELINES = [Case(b, "unconstrained", c) for b in BACKBONES for c in (0, 3)]
every_energy = pytest.mark.parametrize("case", ENERGIES, ids=str)
every_baseline = pytest.mark.parametrize("case", BASELINES, ids=str)
every_model = pytest.mark.parametrize("case", ENERGIES + BASELINES, ids=str)
with_classes = pytest.mark.parametrize(
    "case", [c for c in ENERGIES + BASELINES if c.classes], ids=str
)
without_classes = pytest.mark.parametrize(
    "case", [c for c in ENERGIES + BASELINES if not c.classes], ids=str
)


def samples(model: Model, batch: int = 3) -> tuple[Tensor, Tensor]:
    x = torch.randn(batch, *model.shape, dtype=torch.float64)
    return x, torch.logspace(-1, 0.5, batch, dtype=torch.float64)


def inner_backbone(model: Model) -> Network:
    if isinstance(model, NaturalEnergy):
        return model.network
    return model.potential.backbone if isinstance(model, EnergyDenoiser) else model.backbone


def jacobian(model: Model, label: Tensor | None) -> Tensor:
    """∇D at one point, (d, d)."""
    x = torch.randn(model.shape, dtype=torch.float64)
    one = None if label is None else label[:1]
    matrix = torch.autograd.functional.jacobian(lambda x: model.denoise(x[None], 0.5, one)[0], x)
    return matrix.reshape(model.dim, model.dim)


def asymmetry(matrix: Tensor) -> float:
    return ((matrix - matrix.T).norm() / matrix.norm()).item()


@every_energy
def test_there_is_one_energy_per_sample(case: Case) -> None:
    model = case.perturbed()
    x, sigma = samples(model)
    assert model(x, sigma, case.label()).shape == (3,)


@every_model
def test_the_denoised_sample_is_like_the_sample(case: Case) -> None:
    model = case.perturbed()
    x, sigma = samples(model)
    assert model.denoise(x, sigma, case.label()).shape == x.shape


@every_energy
def test_the_gradient_equals_finite_differences(case: Case) -> None:
    model, h = case.perturbed(), 1e-4
    x, _ = samples(model, batch=1)
    label, sigma = torch.tensor([1]) if case.classes else None, 0.7
    steps = h * torch.eye(model.dim, dtype=torch.float64).view(-1, *model.shape)
    many = None if label is None else label.expand(model.dim)
    with torch.no_grad():
        slope = (model(x + steps, sigma, many) - model(x - steps, sigma, many)) / (2 * h)
    grad = model.value_and_grad(x, sigma, label)[1].flatten()
    assert ((slope - grad).norm() / grad.norm()).item() < 1e-6


@every_energy
def test_the_joint_gradient_by_the_chain_rule_is_autograds(case: Case) -> None:
    model = case.perturbed()
    if isinstance(model, EnergyDenoiser):
        model.gauge.set(torch.linspace(-4.0, 4.0, 65).double(), torch.randn(65).double())
    x, sigma = samples(model)
    chain = model.value_and_grads(x, sigma, case.label())
    for mine, theirs in zip(chain, Energy.gradients(model, x, sigma, case.label()), strict=True):
        assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    at_one_level = model.noise_derivative(x, 0.5, case.label())
    assert_close(at_one_level, model.noise_derivative(x, torch.full((3,), 0.5), case.label()))


@every_energy
def test_the_time_score_trains_the_same_through_the_chain_rule(case: Case) -> None:
    model = case.perturbed().train()
    x, sigma = samples(model)
    parameters = list(model.parameters())
    one, other = (
        torch.autograd.grad(
            gradients(x, sigma, case.label())[2].square().sum(),
            parameters,
            allow_unused=True,
            materialize_grads=True,
        )
        for gradients in (model.value_and_grads, partial(Energy.gradients, model))
    )
    for mine, theirs in zip(one, other, strict=True):
        assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


@every_energy
def test_the_jacobian_of_an_energys_denoiser_is_symmetric(case: Case) -> None:
    assert asymmetry(jacobian(case.perturbed(), case.label())) < 1e-9


@every_baseline
def test_the_jacobian_of_the_baseline_is_not(case: Case) -> None:
    assert asymmetry(jacobian(case.perturbed(), case.label())) > 1e-3


@every_model
def test_a_gradient_of_the_loss_reaches_every_parameter(case: Case) -> None:
    model = case.perturbed().train()
    x0, sigma = samples(model, batch=6)
    noise = sigma.view(-1, *[1] * (x0.ndim - 1)) * torch.randn_like(x0)
    (model.denoise(x0 + noise, sigma, case.label(6)) - x0).square().mean().backward()
    unreached = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []


@every_model
def test_training_starts_at_all(case: Case) -> None:
    """At its initial weights, where much is zero, some gradient must be left to follow."""
    model = case.fresh().train()
    x0, sigma = samples(model)
    (model.denoise(x0, sigma, case.label()) - x0).square().mean().backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())


@every_model
def test_a_saved_model_is_rebuilt_from_its_config(case: Case) -> None:
    model = case.perturbed()
    backbone = inner_backbone(model)
    again = build_denoiser(type(backbone)(**backbone.config), SIGMA_DATA, case.parametrization)
    again.double().eval().load_state_dict(model.state_dict())
    x, sigma = samples(model)
    one, other = (m.denoise(x, sigma, case.label()) for m in (model, again))
    assert torch.equal(one, other)


@pytest.mark.parametrize("case", FROM_BACKBONES, ids=str)
def test_a_fresh_model_is_the_exact_energy_of_a_gaussian(case: Case) -> None:
    """φ = 0 is N(0, (σ²+σ_d²)I), constant included (T1)."""
    model = case.fresh()
    x, sigma = samples(model)
    gaussian = GaussianMixture(torch.zeros(1, *model.shape, dtype=torch.float64), SIGMA_DATA)
    assert_close(model(x, sigma, case.label()), gaussian(x, sigma), rtol=1e-12, atol=1e-12)


@every_baseline
def test_a_fresh_baseline_starts_at_the_same_denoiser(case: Case) -> None:
    model = case.fresh()
    x, sigma = samples(model)
    gaussian = GaussianMixture(torch.zeros(1, *model.shape, dtype=torch.float64), SIGMA_DATA)
    denoised = model.denoise(x, sigma, case.label())
    assert_close(denoised, gaussian.denoise(x, sigma), rtol=1e-12, atol=1e-12)


@with_classes
def test_label_minus_one_means_unknown(case: Case) -> None:
    model = case.perturbed()
    x, sigma = samples(model)
    one, other = (model.denoise(x, sigma, label) for label in (torch.full((3,), -1), None))
    assert torch.equal(one, other)


@with_classes
def test_a_known_label_changes_the_answer(case: Case) -> None:
    model = case.perturbed()
    x, sigma = samples(model)
    answers = [model.denoise(x, sigma, torch.full((3,), label)) for label in (-1, 0, 1, 2)]
    assert all(not torch.allclose(answers[0], other) for other in answers[1:])


@without_classes
def test_a_label_for_a_model_without_classes_is_refused(case: Case) -> None:
    model = case.fresh()
    x, sigma = samples(model)
    with pytest.raises(UserError, match="num_classes = 0"):
        model.denoise(x, sigma, torch.zeros(3, dtype=torch.long))


@every_model
def test_samples_of_a_batch_do_not_see_each_other(case: Case) -> None:
    model, label = case.perturbed(), case.label()
    x, sigma = samples(model)
    together = model.denoise(x, sigma, label)
    for i in range(len(x)):
        one = None if label is None else label[i : i + 1]
        assert_close(model.denoise(x[i : i + 1], sigma[i], one)[0], together[i])
