"""Energies made of energies: known answers, gradients, and what sampling them proves."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.energies import (
    EmpiricalData,
    Energy,
    GaussianMixture,
    Guidance,
    Mixture,
    Negation,
    ScoreSum,
    Sum,
    Temperature,
)
from energydiff.errors import NoEnergyError, UserError
from energydiff.memory import LogSumExpMemory
from energydiff.potentials import MLP, NaturalConvex
from energydiff.sampling import Euler, Heun, certify, karras_sigmas

DIM, HIGH = 3, 10.0
seeds = st.integers(0, 2**31 - 1)
sigmas = st.floats(-1.5, 1.5).map(lambda exponent: 10**exponent)
weights = st.floats(0.05, 20)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(mean: Tensor, std: float | Tensor) -> GaussianMixture:
    return GaussianMixture(mean[None], std)


def learned(num_classes: int = 0, shape: tuple[int, ...] = (DIM,)) -> Energy:
    """A small random network."""
    model = build_denoiser(MLP(shape, width=8, depth=1, num_classes=num_classes), 0.8).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def test_arithmetic_spells_compositions() -> None:
    one, other = lump(0), lump(1)
    x = normal(3, 5, DIM)
    values = one(x, 0.3), other(x, 0.3)
    for spelled, kind, expected in (
        (one + other, Sum, values[0] + values[1]),
        (one - other, Sum, values[0] - values[1]),
        (2 * one + other * 3, Sum, 2 * values[0] + 3 * values[1]),
        (-one, Negation, -values[0]),
        (one / 4, Temperature, values[0] / 4),
    ):
        assert type(spelled) is kind
        assert_close(spelled(x, 0.3), expected)
    assert (one + other).densities == 2
    for wrong in (lambda: one + 1, lambda: one * other, lambda: one / other, lambda: 2 / one):
        with pytest.raises(TypeError, match="unsupported operand"):
            wrong()
    with pytest.raises(UserError, match="temperature must be a positive number"):
        one / 0


def lump(seed: int = 0) -> GaussianMixture:
    return GaussianMixture(2 * normal(seed, 4, DIM), torch.linspace(0.1, 0.6, 4))


def points() -> EmpiricalData:
    return EmpiricalData(normal(2, 5, DIM))


def memory() -> LogSumExpMemory:
    return LogSumExpMemory(2.0).store(normal(3, 4, DIM))


COMPOSED: dict[str, Callable[[], Energy]] = {
    "sum": lambda: Sum([lump(), points(), learned()], [0.5, 1.0, 2.0]),
    "repulsion": lambda: Sum([lump(), Negation(Temperature(points(), 4.0))]),
    "temperature": lambda: Temperature(lump(), 0.5),
    "mixture": lambda: Mixture([lump(), learned(), points()], [1, 2, 3]),
    "nested": lambda: Mixture([Sum([lump(), learned()]), Temperature(points(), 3.0)]),
    "guidance": lambda: Guidance(learned(num_classes=3), 2.0),
    "guided sum": lambda: Guidance(Sum([learned(num_classes=3), lump()]), 2.0),
    "memories": lambda: Sum([Temperature(memory(), 0.7), lump()]),
}
every = pytest.mark.parametrize("make", COMPOSED.values(), ids=COMPOSED)


def inputs(energy: Energy) -> tuple[Tensor, Tensor, Tensor | None]:
    label = torch.tensor([0, 2, -1, 1]) if energy.num_classes else None
    return 2 * normal(5, 4, DIM), torch.tensor([0.1, 0.3, 1.0, 4.0]).double(), label


@every
def test_the_members_gradients_make_the_gradient_of_the_whole(make: Callable[[], Energy]) -> None:
    energy = make()
    x, sigma, label = inputs(energy)
    value, grad = energy.value_and_grad(x, sigma, label)
    whole = energy(x.requires_grad_(), sigma, label)
    (expected,) = torch.autograd.grad(whole.sum(), x)
    assert_close(value, whole.detach(), rtol=1e-12, atol=1e-12)
    assert_close(grad, expected, rtol=1e-12, atol=1e-11)


@every
def test_the_hessian_is_the_slope_of_the_gradient(make: Callable[[], Energy]) -> None:
    energy = make()
    x, sigma, label = inputs(energy)
    v, h = normal(6, 4, DIM), 1e-5
    slope = (energy.score(x - h * v, sigma, label) - energy.score(x + h * v, sigma, label)) / (
        2 * h
    )
    product = energy.hessian_vector_product(x, sigma, v, label)
    assert_close(product, slope, rtol=1e-5, atol=1e-5)


@every
def test_the_noise_derivative_is_a_slope_in_log_sigma(make: Callable[[], Energy]) -> None:
    energy = make()
    x, sigma, label = inputs(energy)
    h = 1e-5
    slope = (energy(x, sigma * (1 + h), label) - energy(x, sigma * (1 - h), label)) / (2 * h)
    derivative = energy.noise_derivative(x, sigma, label)
    assert_close(derivative, slope.detach(), rtol=1e-6, atol=1e-6)


@every
@pytest.mark.parametrize("sampler", [Euler, Heun])
def test_they_sample_with_a_trace_and_a_certificate(
    make: Callable[[], Energy], sampler: type[Euler] | type[Heun]
) -> None:
    energy = make()
    x, _, label = inputs(energy)
    result = sampler(karras_sigmas(6, 0.1, HIGH), final_denoise=True)(
        energy, x_init=HIGH * x, label=label
    )
    trace = result.trace
    assert trace is not None and bool(result.samples.isfinite().all())
    assert trace.free_energy.shape == (8, 4) and bool(trace.free_energy.isfinite().all())
    assert certify(trace).claim == "observed", "none of these is known to be a noised density"


@given(seeds, sigmas, weights, weights)
def test_a_product_of_gaussians_is_the_known_gaussian(
    seed: int, sigma: float, w1: float, w2: float
) -> None:
    """T1: precisions add, w_k/(s_k² + σ²); the energy up to a constant, the score exactly."""
    m1, m2, x = normal(seed, 1, DIM)[0], normal(seed + 1, 1, DIM)[0], 3 * normal(seed + 2, 5, DIM)
    p1, p2 = w1 / (0.3**2 + sigma**2), w2 / (0.8**2 + sigma**2)
    product = Sum([gaussian(m1, 0.3), gaussian(m2, 0.8)], [w1, w2])
    centre = (p1 * m1 + p2 * m2) / (p1 + p2)
    assert_close(product.score(x, sigma), (p1 + p2) * (centre - x), rtol=1e-10, atol=1e-9)
    rest = product(x, sigma) - 0.5 * (p1 + p2) * (x - centre).square().sum(1)
    assert_close(rest, rest.mean().expand(5), rtol=1e-10, atol=1e-10)


@given(seeds, sigmas, st.floats(0.1, 10))
def test_a_gaussian_at_temperature_t_has_t_times_the_variance(
    seed: int, sigma: float, temperature: float
) -> None:
    mean, x = normal(seed, 1, DIM)[0], 3 * normal(seed + 1, 5, DIM)
    score = Temperature(gaussian(mean, 0.4), temperature).score(x, sigma)
    expected = (mean - x) / (temperature * (0.4**2 + sigma**2))
    assert_close(score, expected, rtol=1e-12, atol=1e-12)


@given(seeds, sigmas)
def test_a_negated_expert_is_divided_by(seed: int, sigma: float) -> None:
    """N(x; a, s²)/N(x; b, r²): precisions subtract, so samples are pushed away from b."""
    a, b, x = normal(seed, 1, DIM)[0], normal(seed + 1, 1, DIM)[0], 3 * normal(seed + 2, 5, DIM)
    quotient = Sum([gaussian(a, 0.3), Negation(gaussian(b, 0.9))])
    expected = (a - x) / (0.3**2 + sigma**2) - (b - x) / (0.9**2 + sigma**2)
    assert_close(quotient.score(x, sigma), expected, rtol=1e-10, atol=1e-10)


@given(seeds, sigmas)
def test_a_mixture_of_gaussians_is_the_gaussian_mixture(seed: int, sigma: float) -> None:
    means, stds, shares = normal(seed, 3, DIM), torch.tensor([0.0, 0.2, 1.0]), [1.0, 2.0, 5.0]
    x = 3 * normal(seed + 1, 5, DIM)
    whole = GaussianMixture(means, stds, torch.tensor(shares).double())
    parts = Mixture([gaussian(m, float(s)) for m, s in zip(means, stds, strict=True)], shares)
    assert_close(parts(x, sigma), whole(x, sigma), rtol=1e-12, atol=1e-12)
    assert_close(parts.score(x, sigma), whole.score(x, sigma), rtol=1e-10, atol=1e-10)


@given(seeds, sigmas)
def test_a_mixture_of_data_sets_is_their_union(seed: int, sigma: float) -> None:
    """Weighted by their sizes; also the denoiser and V."""
    a, b, x = normal(seed, 4, DIM), normal(seed + 1, 7, DIM), 3 * normal(seed + 2, 5, DIM)
    mixture = Mixture([EmpiricalData(a), EmpiricalData(b)], [len(a), len(b)])
    union = EmpiricalData(torch.cat([a, b]))
    assert_close(mixture(x, sigma), union(x, sigma), rtol=1e-12, atol=1e-12)
    assert_close(mixture.denoise(x, sigma), union.denoise(x, sigma), rtol=0, atol=1e-11)
    assert_close(mixture.free_energy(x, sigma), union.free_energy(x, sigma), rtol=1e-11, atol=1e-11)


@given(seeds, sigmas)
def test_free_energies_of_a_sum_add(seed: int, sigma: float) -> None:
    """V = Σ w_k V_k, through nesting; a sum that counted the noise once would not."""
    a, b, c, x = lump(), points(), lump(1), 3 * normal(seed, 5, DIM)
    nested = Sum([Sum([a, b], [0.5, 2.0]), Temperature(c, 4.0)], [1.0, 3.0])
    parts = [e.free_energy(x, sigma) for e in (a, b, c)]
    expected = 0.5 * parts[0] + 2.0 * parts[1] + 0.75 * parts[2]
    assert_close(nested.free_energy(x, sigma), expected, rtol=1e-11, atol=1e-10)


@given(seeds, st.floats(-2, 8))
def test_guidance_extrapolates_from_unlabelled_to_labelled(seed: int, weight: float) -> None:
    """Ho & Salimans 2022, eq. 6, in each of E and ∇E; samples without a label stay as they are."""
    torch.manual_seed(seed)
    model, x = learned(num_classes=3), normal(seed, 4, DIM)
    label = torch.tensor([0, 1, 2, -1])
    sigma = torch.tensor([0.1, 0.5, 2.0, 0.5]).double()
    guided = Guidance(model, weight).value_and_grad(x, sigma, label)
    labelled, unlabelled = model.value_and_grad(x, sigma, label), model.value_and_grad(x, sigma)
    for answer, with_label, without in zip(guided, labelled, unlabelled, strict=True):
        assert_close(answer, (1 + weight) * with_label - weight * without, rtol=1e-9, atol=1e-9)
        assert_close(answer[3], without[3], rtol=1e-9, atol=1e-9)
    assert_close(Guidance(model, weight)(x, 0.3), model(x, 0.3), rtol=0, atol=0)


def test_guidance_asks_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a batch twice as large; without labels, on the batch."""
    model, asked = learned(num_classes=3), []
    forward = model.potential.forward
    monkeypatch.setattr(
        model.potential, "forward", lambda u, c, label: asked.append(len(u)) or forward(u, c, label)
    )
    guided = Guidance(model, 1.0)
    guided.score(normal(0, 4, DIM), 0.5, torch.tensor([0, 1, 2, -1]))
    guided.score(normal(0, 4, DIM), 0.5)
    assert asked == [8, 4]


def test_members_answer_by_their_own_closed_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set streams its gradient: nothing differentiates through all of its points."""
    monkeypatch.delattr(EmpiricalData, "forward")
    for energy in (Sum([points(), points()]), Mixture([points(), Temperature(points(), 2.0)])):
        assert energy.value_and_grad(normal(0, 2, DIM), 0.5)[1].shape == (2, DIM)


@pytest.mark.parametrize("steps", [5, 20, 80])
def test_a_mixture_of_exact_energies_is_proved_to_descend(steps: int) -> None:
    energy = Mixture([lump(), GaussianMixture(normal(4, 2, DIM), 0.2)], [1, 3])
    trace = Euler(karras_sigmas(steps, 0.02, HIGH), final_denoise=True)(
        energy, x_init=HIGH * normal(7, 100, DIM)
    ).trace
    certificate = certify(trace)
    assert energy.exact and certificate.claim == "proved" and certificate.holds
    assert certificate.descent_rises == certificate.landscape_rises == 0
    assert certificate.bound_misses == 0


@pytest.mark.parametrize("steps", [5, 20, 80])
def test_a_sum_of_two_exact_energies_descends_and_claims_no_bound(steps: int) -> None:
    """V − (Σw/2)‖x‖² is concave: a step η ≤ 1 cannot overshoot while Σw ≤ 2."""
    energy = Sum([lump(), points()])
    trace = Euler(karras_sigmas(steps, 0.02, HIGH), final_denoise=True)(
        energy, x_init=HIGH * normal(7, 100, DIM)
    ).trace
    certificate = certify(trace)
    assert not energy.exact and certificate.claim == "observed"
    assert certificate.descent_rises == certificate.landscape_rises == 0


def test_a_cold_energy_overshoots_large_steps_and_the_certificate_says_so() -> None:
    """Σw = 1/T = 4: the promise is gone, and in five steps V does rise."""
    trace = Euler(karras_sigmas(5, 0.02, HIGH))(
        Temperature(lump(), 0.25), x_init=HIGH * normal(7, 100, DIM)
    ).trace
    certificate = certify(trace)
    assert not certificate.holds and certificate.descent_rises > 0


CLAIMS = {
    "sum": (lambda: Sum([lump(), lump(1)]), ("observed", "observed", "proved")),
    "weights of 1 in all": (
        lambda: Sum([lump(), lump(1)], [0.3, 0.7]),
        ("proved", "proved", "proved"),
    ),
    "repulsion": (lambda: Sum([lump(), lump(1)], [1.5, -0.5]), ("observed",) * 3),
    "negation": (lambda: Negation(lump()), ("observed",) * 3),
    "warm": (lambda: Temperature(lump(), 2.0), ("proved", "proved", "proved")),
    "cold": (lambda: Temperature(lump(), 0.5), ("observed", "observed", "proved")),
    "mixture with a sum": (
        lambda: Mixture([lump(), Sum([lump(), lump()], [0.5, 0.5])]),
        ("proved", "proved", "proved"),
    ),
    "mixture of powers": (lambda: Mixture([lump(), Temperature(lump(), 2.0)]), ("observed",) * 3),
    "mixture with a memory": (lambda: Mixture([lump(), memory()]), ("observed",) * 3),
    "mixture of natural energies": (
        lambda: Mixture([natural(0), natural(1)], [1, 3]),
        ("proved", "proved", "proved"),
    ),
    "natural and exact": (lambda: Mixture([natural(0), points()]), ("proved", "proved", "proved")),
    "tempered natural": (lambda: Temperature(natural(0), 1.5), ("proved", "proved", "proved")),
}


class Convex(NaturalConvex):
    """So that the theorem is asked, not whether it is exact."""

    density = False


def natural(seed: int) -> Energy:
    torch.manual_seed(seed)
    return build_denoiser(Convex((DIM,), 8), 0.7, "natural").double().eval()


@pytest.mark.parametrize("name", CLAIMS)
def test_what_is_proved_of_members_is_of_the_whole_where_a_theorem_says_so(name: str) -> None:
    """Sums with weights ≥ 0, whose descent needs Σw ≤ 1 too; mixtures of densities."""
    make, claims = CLAIMS[name]
    energy = make()
    assert not energy.exact
    trace = Euler(karras_sigmas(6, 0.1, HIGH), True)(energy, x_init=HIGH * normal(0, 30, DIM)).trace
    assert trace is not None and trace.claims == claims
    certificate = certify(trace)
    assert claims[1] != "proved" or certificate.descent_rises == certificate.bound_misses == 0
    assert claims[2] != "proved" or certificate.landscape_rises == 0


def test_a_cooled_memory_is_a_sharper_one() -> None:
    store, x = memory(), normal(8, 5, DIM)
    assert_close(Temperature(store, 0.25).score(x, 1.0), 4 * store.score(x, 1.0))


def test_ode_samples_of_a_product_are_narrower_than_the_product() -> None:
    """Two unit Gaussians, product of variance ½: the ODE contracts by (1 + σ²) from σ = 10."""
    energy = Sum([gaussian(torch.zeros(1).double(), 1.0)] * 2)
    result = Heun(karras_sigmas(200, 0.02, HIGH))(energy, x_init=HIGH * normal(0, 2000, 1))
    assert result.samples.std().item() == pytest.approx(HIGH / (1 + HIGH**2), rel=0.05)


@every
def test_float32_and_float64(make: Callable[[], Energy]) -> None:
    energy = make()
    x, sigma, label = inputs(energy)
    expected = energy.value_and_grad(x, sigma, label)
    found = energy.float().value_and_grad(x.float(), sigma.float(), label)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert_close(one.double(), other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("training", [False, True])
def test_training_reaches_the_weights_of_every_member(training: bool) -> None:
    """Through the posterior shares of a mixture, too."""
    first, second = learned(num_classes=2), learned()
    energy = Mixture([Guidance(first, 1.0), Sum([second, lump()])]).train(training)
    x, label = normal(0, 4, DIM), torch.tensor([0, 1, -1, 0])
    denoised = energy.denoise(x, 0.5, label)
    assert denoised.requires_grad == training
    if training:
        denoised.square().sum().backward()
        for member in (first, second):
            gradients = [p.grad for p in member.parameters()]
            assert all(g is not None and bool(g.isfinite().all()) for g in gradients)


def test_a_label_goes_to_the_members_that_take_one() -> None:
    labelled, plain, x = learned(num_classes=3), learned(), normal(0, 3, DIM)
    energy, label = Sum([labelled, plain, lump()]), torch.tensor([0, 1, 2])
    assert energy.num_classes == 3
    expected = labelled(x, 0.5, label) + plain(x, 0.5) + lump()(x, 0.5)
    assert_close(energy(x, 0.5, label), expected)
    unlabelled = Sum([plain, lump()])
    for question in (unlabelled, unlabelled.value_and_grad):
        with pytest.raises(UserError, match="num_classes = 0"):
            question(x, 0.5, label)


def test_members_may_have_classes_of_their_own() -> None:
    """Two classes of one model, and a member without; a caller has no label to give."""
    model, x = learned(num_classes=3), normal(0, 4, DIM)
    energy = Sum([model, model, lump()], [1.0, 2.0, 1.0], labels=[0, 2, -1])
    assert energy.num_classes == 0
    first, second = (model(x, 0.5, torch.full((4,), own)) for own in (0, 2))
    assert_close(energy(x, 0.5), first + 2 * second + lump()(x, 0.5))
    expected = torch.autograd.functional.jacobian(lambda x: energy(x, 0.5).sum(), x)
    assert_close(energy.value_and_grad(x, 0.5)[1], expected)
    scores = ScoreSum([model, model, lump()], [1.0, 2.0, 1.0], [0, 2, -1])
    assert_close(scores.denoise(x, 0.5), energy.denoise(x, 0.5))
    assert scores.energy is None and scores.noise == model.noise


@pytest.mark.parametrize("make", [COMPOSED["sum"], COMPOSED["guidance"]], ids=["sum", "guidance"])
def test_samples_and_labels_that_do_not_fit_are_refused(make: Callable[[], Energy]) -> None:
    """In the composition's own name and numbers."""
    energy = make()
    for question in (energy, energy.value_and_grad, energy.denoise, energy.free_energy):
        with pytest.raises(UserError, match=f"{type(energy).__name__} takes floating point"):
            question(torch.zeros(4, DIM + 1), 0.5)
        if energy.num_classes:
            with pytest.raises(UserError, match="label must be 4 integers from -1"):
                question(torch.zeros(4, DIM), 0.5, torch.tensor([0, 1, 2]))


def baseline() -> Energy:
    return build_denoiser(MLP((DIM,), width=8, depth=1, num_classes=2), 1.0, "unconstrained")


MISTAKES = {
    "no members": (lambda: Sum([]), "at least one energy"),
    "no members of a mixture": (lambda: Mixture([]), "at least one energy"),
    "shapes": (lambda: Mixture([lump(), learned(shape=(2,))]), r"one shape.*\(2,\), \(3,\)"),
    "classes": (lambda: Sum([learned(2), learned(3)]), r"same classes, got \[2, 3\]"),
    "too few weights": (lambda: Sum([lump(), lump()], [1.0]), "2 finite numbers"),
    "too few labels": (lambda: Sum([lump(), lump()], labels=[-1]), "labels must be 2 classes"),
    "a label there is not": (lambda: Sum([learned(2)], labels=[2]), r"of \[2\] classes each"),
    "no weights of scores": (lambda: ScoreSum([lump()], [], [-1]), "1 of shapes.*0 weights"),
    "infinite weight": (lambda: Sum([lump()], [float("inf")]), "1 finite numbers"),
    "weights not a number": (lambda: Mixture([lump()], [float("nan")]), "positive numbers"),
    "zero weight": (lambda: Mixture([lump(), lump()], [1.0, 0.0]), "positive numbers"),
    "negative weight": (lambda: Mixture([lump()], torch.tensor([-1.0])), "positive numbers"),
    "too many weights": (lambda: Mixture([lump()], [1.0, 2.0]), "1 finite numbers"),
    "temperature 0": (lambda: Temperature(lump(), 0.0), "temperature must be a positive number"),
    "temperature nan": (lambda: Temperature(lump(), float("nan")), "temperature must be"),
    "no classes": (lambda: Guidance(learned(), 1.0), "guidance needs an energy with classes"),
    "guidance nan": (lambda: Guidance(learned(3), float("nan")), "weight of guidance"),
    "no energy at all": (lambda: Sum([torch.nn.Linear(3, 3)]), "made of energies, got Linear"),
    "empty memory": (lambda: Temperature(LogSumExpMemory(1.0), 1.0), "store its patterns"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_sentence(mistake: str) -> None:
    build, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message):
        build()


@pytest.mark.parametrize(
    "compose",
    [
        lambda e: Sum([e, e]),
        lambda e: Mixture([lump(), e]),
        Negation,
        lambda e: Temperature(e, 2.0),
        lambda e: Guidance(e, 1.0),
    ],
)
def test_a_baseline_has_no_energy_to_compose(compose: Callable[[Energy], Energy]) -> None:
    with pytest.raises(NoEnergyError, match="no energy"):
        compose(baseline())
