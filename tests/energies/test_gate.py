"""The one gate through which energies are differentiated: the same field in every mode."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.energies import EmpiricalData, Energy, GaussianMixture, Guidance, Mixture, Sum
from energydiff.errors import UserError
from energydiff.potentials import MLP, UNet

SHAPE = (1, 4, 4)
MODES = {"grad": nullcontext, "no_grad": torch.no_grad, "inference": torch.inference_mode}

Answer = Callable[[Energy, Tensor, Tensor | float, Tensor | None], tuple[Tensor, ...]]
METHODS: dict[str, Answer] = {
    "value_and_grad": lambda e, x, sigma, label: e.value_and_grad(x, sigma, label),
    "score": lambda e, x, sigma, label: (e.score(x, sigma, label),),
    "denoise": lambda e, x, sigma, label: (e.denoise(x, sigma, label),),
    "noise_derivative": lambda e, x, sigma, label: (e.noise_derivative(x, sigma, label),),
    "value_and_grads": lambda e, x, sigma, label: e.value_and_grads(x, sigma, label),
    "free_energy_slope": lambda e, x, sigma, label: (e.free_energy_slope(x, sigma, label),),
    "hessian_vector_product": lambda e, x, sigma, label: (
        e.hessian_vector_product(x, sigma, x + 1, label),
    ),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
graph_methods = pytest.mark.parametrize(
    "method", [METHODS[m] for m in METHODS if m != "hessian_vector_product"]
)


def perturbed(model: Energy, size: float = 0.2) -> Energy:
    """Networks start at φ = 0, where there is little to get wrong."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return model


def mlp() -> Energy:
    return perturbed(build_denoiser(MLP(SHAPE, width=8, depth=1, num_classes=3), 0.5))


def unet() -> Energy:
    backbone = UNet(SHAPE, 4, (1, 2), 1, attention_resolutions=(2,), num_classes=3)
    return perturbed(build_denoiser(backbone, 0.5))


def mixture() -> Energy:
    return GaussianMixture(torch.randn(4, *SHAPE), 0.3)


def points() -> Energy:
    return EmpiricalData(torch.randn(4, *SHAPE))


def mixed() -> Energy:
    return Mixture([Sum([mlp(), mixture()], [0.7, 0.3]), points()], [1, 2])


def guided() -> Energy:
    return Guidance(mlp(), 1.5)


BUILDERS = {f.__name__: f for f in (mlp, unet, mixture, points, mixed, guided)}
every_energy = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
learned = pytest.mark.parametrize("build", [mlp, unet, mixed, guided])


def inputs(energy: Energy) -> tuple[Tensor, Tensor, Tensor | None]:
    label = torch.tensor([0, 2, -1]) if energy.num_classes else None
    return torch.randn(3, *SHAPE), torch.tensor([0.3, 1.0, 4.0]), label


def in_double(build: Callable[[], Energy]) -> tuple[Energy, Tensor, Tensor, Tensor | None]:
    energy = build().double().eval()
    x, sigma, label = inputs(energy)
    return energy, x.double(), sigma.double(), label


def values(answer: tuple[Tensor, ...]) -> list[list[float]]:
    """Numbers free of every mode."""
    return [part.detach().flatten().tolist() for part in answer]


def same_values(answer: tuple[Tensor, ...], expected: list[list[float]]) -> None:
    for one, other in zip(values(answer), expected, strict=True):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-6)


@every_energy
@every_method
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("origin", ["grad", "inference"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_same_field(
    build: Callable[[], Energy], method: Answer, training: bool, origin: str, mode: str
) -> None:
    """Also for inputs that come out of inference mode, where no graph may hold them."""
    energy = build().train(training)
    ordinary = inputs(energy)
    expected = values(method(energy, *ordinary))
    with MODES[origin]():
        x, sigma, label = (None if part is None else part.clone() for part in ordinary)
    with MODES[mode]():
        answer = method(energy, x, sigma, label)
    same_values(answer, expected)


@learned
@graph_methods
def test_training_keeps_a_graph(build: Callable[[], Energy], method: Answer) -> None:
    energy = build().train()
    assert all(part.requires_grad for part in method(energy, *inputs(energy)))


@learned
@every_method
def test_no_graph_is_kept_in_eval_mode(build: Callable[[], Energy], method: Answer) -> None:
    energy = build().eval()
    assert not any(part.requires_grad for part in method(energy, *inputs(energy)))


@learned
@every_method
@pytest.mark.parametrize("mode", ["no_grad", "inference"])
def test_no_graph_is_kept_where_gradients_are_off(
    build: Callable[[], Energy], method: Answer, mode: str
) -> None:
    energy = build().train()
    with MODES[mode]():
        answer = method(energy, *inputs(energy))
    assert not any(part.requires_grad for part in answer)


@learned
@every_method
def test_frozen_weights_keep_no_graph(build: Callable[[], Energy], method: Answer) -> None:
    energy = build().train().requires_grad_(False)
    assert not any(part.requires_grad for part in method(energy, *inputs(energy)))


@every_energy
def test_a_graph_through_x_is_there_on_request(build: Callable[[], Energy]) -> None:
    """Its derivative is the Hessian's product, also in eval mode."""
    energy = build().eval()
    x, sigma, label = inputs(energy)
    x.requires_grad_()
    vector = torch.randn_like(x)
    _, grad = energy.value_and_grad(x, sigma, label)
    (product,) = torch.autograd.grad(grad, x, vector)
    assert_close(product, energy.hessian_vector_product(x, sigma, vector, label))


@every_energy
def test_the_callers_x_is_left_alone(build: Callable[[], Energy]) -> None:
    energy = build()
    x, sigma, label = inputs(energy)
    energy.score(x, sigma, label)
    assert not x.requires_grad and x.grad is None


@every_energy
def test_the_parts_agree(build: Callable[[], Energy]) -> None:
    """s = −∇E, D = x − σ²∇E and V = σ²[E − (d/2) log 2πσ²] of one energy."""
    energy, x, sigma, label = in_double(build)
    value, grad = energy.value_and_grad(x, sigma, label)
    square = sigma.square()
    assert_close(value, energy(x, sigma, label))
    assert_close(energy.score(x, sigma, label), -grad)
    assert_close(energy.denoise(x, sigma, label), x - square.view(-1, 1, 1, 1) * grad)
    free = square * (value - 0.5 * energy.dim * (2 * torch.pi * square).log())
    assert_close(energy.free_energy(x, sigma, label), free)


@every_energy
def test_the_noise_derivative_is_a_slope_in_log_sigma(build: Callable[[], Energy]) -> None:
    (energy, x, sigma, label), h = in_double(build), 1e-5
    later, earlier = energy(x, sigma * (1 + h), label), energy(x, sigma * (1 - h), label)
    slope = (later - earlier).detach() / (2 * h)
    assert_close(energy.noise_derivative(x, sigma, label), slope, rtol=1e-6, atol=1e-6)


@every_energy
def test_one_pass_gives_what_two_give(build: Callable[[], Energy]) -> None:
    energy, x, sigma, label = in_double(build)
    expected = *energy.value_and_grad(x, sigma, label), energy.noise_derivative(x, sigma, label)
    assert_close(energy.value_and_grads(x, sigma, label), expected)


def test_a_gradient_written_out_is_taken_behind_the_gate() -> None:
    """It gets σ per sample, no x with a graph of its own, and the caller's wish for a graph."""
    seen: list[tuple[torch.Size, bool, bool, bool]] = []

    class Bowl(Energy):
        shape = SHAPE

        def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
            raise AssertionError("its gradient knows the value too")

        def gradient(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
            grad = torch.is_grad_enabled()
            seen.append((sigma.shape, x.requires_grad, grad, torch.is_inference_mode_enabled()))
            return x.square().flatten(1).sum(1) / 2, x

    energy, x = Bowl().eval(), torch.randn(3, *SHAPE)
    assert_close(energy.denoise(x, 0.5), 0.75 * x)
    with torch.inference_mode():
        energy.score(x, 2)
    energy.value_and_grad(x.clone().requires_grad_(), 1.0)
    alone = torch.Size([3]), False, False, False
    assert seen == [alone, alone, (torch.Size([3]), True, True, False)]


@every_energy
@every_method
def test_a_model_built_in_inference_mode_works_or_says_why_not(
    build: Callable[[], Energy], method: Answer
) -> None:
    """Its tensors can take part in no graph. Never another error, never another field."""
    torch.manual_seed(1)
    expected = values(method(energy := build(), *inputs(energy)))
    torch.manual_seed(1)
    with torch.inference_mode():
        energy = build()
    try:
        answer = method(energy, *inputs(energy))
    except UserError as error:
        assert "inference_mode" in str(error)
    else:
        same_values(answer, expected)


@learned
def test_a_learned_model_built_in_inference_mode_is_refused(build: Callable[[], Energy]) -> None:
    with torch.inference_mode():
        energy = build()
    with pytest.raises(UserError, match="build it outside that mode"):
        energy.score(*inputs(energy))


def bfloat16() -> AbstractContextManager[None]:
    return torch.autocast("cpu", torch.bfloat16)


@every_energy
@every_method
def test_autocast_does_not_touch_the_gate_in_eval_mode(
    build: Callable[[], Energy], method: Answer
) -> None:
    energy = build().eval()
    given = inputs(energy)
    expected = method(energy, *given)
    with bfloat16():
        answer = method(energy, *given)
    assert_close(answer, expected, rtol=0, atol=0)


@every_energy
def test_autocast_does_not_touch_the_free_energy_in_eval_mode(build: Callable[[], Energy]) -> None:
    """A trace compares V from ``free_energy`` with V from ``value_and_grad``: one precision."""
    energy = build().eval()
    given = inputs(energy)
    expected = energy.free_energy(*given)
    with bfloat16():
        answer = energy.free_energy(*given)
    assert_close(answer, expected, rtol=0, atol=0)


@learned
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_energies_are_float32_under_autocast(build: Callable[[], Energy], training: bool) -> None:
    energy = build().train(training)
    with bfloat16():
        value, grad = energy.value_and_grad(*inputs(energy))
    assert value.dtype == grad.dtype == torch.float32


@every_energy
def test_energies_of_half_precision_samples_are_float32(build: Callable[[], Energy]) -> None:
    energy = build().eval()
    x, sigma, label = inputs(energy)
    assert energy.value_and_grad(x.bfloat16(), sigma, label)[0].dtype == torch.float32


@learned
def test_training_under_autocast_reaches_the_weights(build: Callable[[], Energy]) -> None:
    energy = build().train()
    with bfloat16():
        loss = energy.denoise(*inputs(energy)).square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in energy.parameters())


@every_energy
@every_method
@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_noise_must_be_positive(build: Callable[[], Energy], method: Answer, sigma: float) -> None:
    energy = build()
    x, _, label = inputs(energy)
    with pytest.raises(UserError, match="sigma"):
        method(energy, x, sigma, label)


@every_energy
@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_noise_must_be_positive_in_the_energy_itself(
    build: Callable[[], Energy], sigma: float
) -> None:
    energy = build()
    x, _, label = inputs(energy)
    with pytest.raises(UserError, match="sigma"):
        energy.free_energy(x, sigma, label)


class Watched(Energy):
    """½‖x‖²/σ² with its gradient written out; notes what it meets behind the gate."""

    def __init__(self, trainable: bool = True) -> None:
        super().__init__()
        self.shape, self.checks = SHAPE, 0
        self.scale = torch.nn.Parameter(torch.ones(()), requires_grad=trainable)

    def check(self, x: Tensor, label: Tensor | None = None) -> None:
        self.checks += 1
        super().check(x, label)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        return 0.5 * self.scale * x.square().flatten(1).sum(1) / sigma.square()

    def gradient(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        self.met = {
            "graph": torch.is_grad_enabled(),
            "inference": torch.is_inference_mode_enabled() or x.is_inference(),
            "autocast": torch.is_autocast_enabled("cpu"),
            "sigma": tuple(sigma.shape),
            "dtype": x.dtype,
        }
        return self.forward(x, sigma, label), self.scale * x / sigma.square().view(-1, 1, 1, 1)


ASKED = {
    "energy": lambda e, x: e(x, 2.0),
    "value_and_grad": lambda e, x: e.value_and_grad(x, 2.0),
    "value_and_grads": lambda e, x: e.value_and_grads(x, 2.0),
    "denoise": lambda e, x: e.denoise(x, 2.0),
    "free_energy": lambda e, x: e.free_energy(x, 2.0),
    "free_energy_slope": lambda e, x: e.free_energy_slope(x, 2.0),
    "hessian_vector_product": lambda e, x: e.hessian_vector_product(x, 2.0, x),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_arguments_are_checked_once(ask: Callable[[Energy, Tensor], object]) -> None:
    energy = Watched()
    ask(energy, torch.randn(3, *SHAPE))
    assert energy.checks == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("trainable", [False, True], ids=["frozen", "trainable"])
@pytest.mark.parametrize("through_x", [False, True], ids=["data", "leaf"])
def test_behind_the_gate_gradients_are_enabled_where_a_graph_is_kept(
    mode: str, training: bool, trainable: bool, through_x: bool
) -> None:
    """A subclass writes ∇E out and needs to know nothing else."""
    energy = Watched(trainable).train(training)
    with MODES[mode]():
        x = torch.randn(3, *SHAPE).bfloat16().requires_grad_(through_x)
        with bfloat16():
            value, grad = energy.value_and_grad(x, 2.0)
    kept = mode == "grad" and (through_x or (training and trainable))
    assert energy.met == {
        "graph": kept,
        "inference": False,
        "autocast": training,
        "sigma": (3,),
        "dtype": torch.bfloat16 if training else torch.float32,
    }
    assert (value.requires_grad, grad.requires_grad) == (kept, kept)


@every_energy
def test_the_slope_of_the_free_energy_is_its_derivative_in_sigma(
    build: Callable[[], Energy],
) -> None:
    (energy, x, sigma, label), h = in_double(build), 1e-5
    later = energy.free_energy(x, sigma * (1 + h), label)
    earlier = energy.free_energy(x, sigma * (1 - h), label)
    difference = (later - earlier).detach() / (2 * h * sigma)
    slope = energy.free_energy_slope(x, sigma, label)
    assert_close(slope, difference, rtol=1e-6, atol=1e-6)
    if energy.exact:
        assert bool((slope >= 0).all())


@pytest.fixture(params=["older settings", "newer settings"])
def tensor_float(request: pytest.FixtureRequest) -> Iterator[Callable[[], set[str]]]:
    """TF32 chosen for all products, as convolutions have it by default; asks for it."""
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    if request.param == "older settings":
        torch.set_float32_matmul_precision("high")
    else:
        conv.fp32_precision = matmul.fp32_precision = "tf32"
        torch.backends.cudnn.rnn.fp32_precision = "ieee"  # the older question has no answer now
    yield lambda: {conv.fp32_precision, matmul.fp32_precision}
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")


class Asking(GaussianMixture):
    """Notes the precision of products inside."""

    def __init__(self, ask: Callable[[], set[str]]) -> None:
        super().__init__(torch.zeros(1, *SHAPE), 0.3)
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.ask = ask
        self.seen: set[str] = set()

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        self.seen = self.ask()
        return self.scale * super().forward(x, sigma, label)


@every_method
@pytest.mark.parametrize("training", [False, True])
def test_tf32_is_for_training_alone(
    method: Answer, training: bool, tensor_float: Callable[[], set[str]]
) -> None:
    energy = Asking(tensor_float).train(training)
    x = torch.randn(2, *SHAPE)
    for ask in (method, lambda e, x, sigma, label: e(x, sigma, label)):
        ask(energy, x, 0.5, None)
        assert ("tf32" in energy.seen) is training
    assert tensor_float() == {"tf32"}
