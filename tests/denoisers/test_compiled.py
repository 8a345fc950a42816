"""A compiled model is the eager one: in training, in sampling, on ranks and in files."""

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.diffusion import (
    DenoisingScoreMatching,
    DualScoreMatching,
    EquilibriumMatching,
    MaximumLikelihood,
    NoisyBatch,
    Objective,
)
from energydiff.energies import Denoiser
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
from energydiff.sampling import Euler, certify, karras_sigmas

SHAPE = (1, 4, 4)
DENOISING, DUAL = DenoisingScoreMatching(), DualScoreMatching()
READOUT = ("attention", "memory", "inner_product")
NETWORKS: dict[str, Callable[[], Network]] = {
    "mlp": lambda: MLP(SHAPE, width=8, depth=1),
    "wide mlp": lambda: MLP(SHAPE, width=512, depth=1),
    "mlp with classes": lambda: MLP(SHAPE, width=8, depth=1, num_classes=3),
    "transformer": lambda: Transformer(SHAPE, width=16, depth=1, heads=2),
    "unet": lambda: UNet(SHAPE, 4, (1, 2), 1, (2,)),
    "token network": lambda: TokenNetwork(SHAPE, width=8, num_classes=3),
    "energy transformer": lambda: EnergyTransformer(
        SHAPE, width=8, trunk=("convolution", "feedforward", "attention"), heads=2, num_classes=3
    ),
    "attention energy": lambda: EnergyTransformer(SHAPE, width=8, trunk=(), heads=2),
    "published": lambda: PublishedEnergyTransformer(
        SHAPE, width=8, depth=1, heads=2, self_excluded=True
    ),
    "energy unet": lambda: EnergyUNet(SHAPE, 4, (1, 2), 1, (2,), num_classes=3, periods=(0.5,)),
    "convex": lambda: InputConvex(SHAPE, width=8),
    "natural": lambda: NaturalConvex(SHAPE, 4, 3, num_classes=3),
    "natural conv": lambda: NaturalConvexConv(SHAPE, 4, 3),
}


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def make_model(
    network: str = "mlp", parametrization: str = "inner_product", compiler: Any = "eager"
) -> Denoiser:
    """Without a layer at zero. The backend that only traces, ``eager``, is fastest; ``aot_eager``
    also splits what was traced into a forward and a backward pass."""
    torch.manual_seed(0)
    model = build_denoiser(NETWORKS[network](), 0.5, parametrization, compile=True)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    model.compiler = compiler
    return model


def without_compiler(model: Denoiser) -> Denoiser:
    eager = copy.deepcopy(model)
    eager.compiler = None  # type: ignore[assignment]
    return eager


def make_batch(model: Denoiser, seed: int = 0, images: int = 5) -> NoisyBatch:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, images, *SHAPE, generator=generator)
    sigma = torch.rand(images, generator=generator) + 0.1
    label = torch.arange(images) % 4 - 1 if model.num_classes else None
    return NoisyBatch(0.5 * noise[0], sigma, noise[1], 0.5, label)


def training_gradient(model: Denoiser, objective: Objective, batch: NoisyBatch) -> Tensor:
    model.zero_grad()
    torch.stack(list(objective(model, batch).values())).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def check_trains(model: Denoiser, objective: Objective) -> None:
    batch = make_batch(model)
    found = training_gradient(model, objective, batch)
    assert counters["stats"]["unique_graphs"] == 1
    expected = training_gradient(without_compiler(model), objective, batch)
    assert found.shape == expected.shape
    assert expected.norm() > 1e-3
    assert (found - expected).norm() < 1e-4 * expected.norm()


def check_samples(model: Denoiser) -> None:
    results = []
    for each in (model.eval(), without_compiler(model)):
        sampler = Euler(karras_sigmas(steps=3, sigma_min=0.1, sigma_max=2.0), final_denoise=True)
        results.append(sampler(each, seeds=range(4)))
    assert_close(results[0].samples, results[1].samples, rtol=1e-4, atol=1e-5)
    if results[0].trace is not None:
        assert certify(results[0].trace).rises == certify(results[1].trace).rises


@pytest.mark.parametrize(
    ("network", "parametrization", "objective"),
    [
        ("mlp with classes", "inner_product", DENOISING),
        ("mlp", "unconstrained", DENOISING),
        ("mlp", "coercive", EquilibriumMatching()),
        ("attention energy", "scalar", DUAL),
    ],
)
def test_trains_as_the_eager_one(network: str, parametrization: str, objective: Objective) -> None:
    check_trains(make_model(network, parametrization), objective)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "parametrization", "objective"),
    [
        ("mlp with classes", "inner_product", DENOISING),
        ("mlp", "inner_product", DUAL),
        ("mlp", "unconstrained", DENOISING),
        ("mlp", "coercive", EquilibriumMatching()),
        ("transformer", "inner_product", DUAL),
        ("transformer", "unconstrained", DENOISING),
        ("unet", "inner_product", DUAL),
        ("unet", "unconstrained", DENOISING),
        ("token network", "sum", DUAL),
        ("mlp", "dot", EquilibriumMatching()),
        ("mlp", "squared_norm", EquilibriumMatching()),
        ("convex", "convex", DUAL),
        ("natural", "natural", DUAL),
        ("natural", "natural", MaximumLikelihood()),
        ("natural conv", "natural", DENOISING),
        ("energy transformer", "scalar", DENOISING),
        ("energy transformer", "scalar", DUAL),
        ("published", "scalar", DUAL),
        ("energy unet", "scalar", DENOISING),
        ("energy unet", "scalar", DUAL),
    ],
)
def test_every_network_trains_as_the_eager_one(
    network: str, parametrization: str, objective: Objective
) -> None:
    check_trains(make_model(network, parametrization, "aot_eager"), objective)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "parametrization", "objective"),
    [
        ("mlp with classes", "inner_product", DUAL),
        ("mlp", "unconstrained", DENOISING),
        ("mlp", "coercive", EquilibriumMatching()),
        ("transformer", "inner_product", DUAL),
        ("unet", "inner_product", DENOISING),
        ("energy transformer", "scalar", DUAL),
        ("energy unet", "scalar", DUAL),
    ],
)
def test_inductor_trains_as_the_eager_one(
    network: str, parametrization: str, objective: Objective
) -> None:
    check_trains(make_model(network, parametrization, "inductor"), objective)


@pytest.mark.slow
@pytest.mark.parametrize("parametrization", ["inner_product", "unconstrained"])
def test_inductor_samples_as_the_eager_one(parametrization: str) -> None:
    check_samples(make_model("mlp", parametrization, "inductor"))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("parametrization", ["inner_product", "unconstrained"])
def test_without_gradients(mode: Callable[[], Any], parametrization: str) -> None:
    model = make_model("mlp", parametrization).eval()
    eager = without_compiler(model)
    with mode():
        x = torch.ones(3, *SHAPE)
        denoised = model.denoise(x, 0.5)
        assert not denoised.requires_grad
        assert_close(denoised, eager.denoise(x, 0.5))
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_in_bfloat16_as_the_eager_one() -> None:
    model = make_model(compiler="aot_eager")
    x, sigma = torch.randn(5, *SHAPE), torch.rand(5) + 0.1
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = model.denoise(x, sigma), without_compiler(model).denoise(x, sigma)
    assert (found - expected).norm() < 1e-2 * expected.norm()


@pytest.mark.parametrize(
    ("parametrization", "objective"),
    [
        pytest.param("inner_product", DENOISING, marks=pytest.mark.slow),
        ("inner_product", DUAL),
        ("unconstrained", DENOISING),
        pytest.param("coercive", EquilibriumMatching(), marks=pytest.mark.slow),
    ],
)
def test_nothing_is_compiled_again(parametrization: str, objective: Objective) -> None:
    """Neither at another σ, tensor or number, nor for another batch, nor after a step; once more
    for another batch size, and then for no other."""
    counter = CompileCounter()
    model = make_model("mlp with classes", parametrization, counter)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    for seed in range(4):
        training_gradient(model, objective, make_batch(model, seed))
        optimizer.step()
    assert counter.frame_count == 1
    if model.noise_blind:
        return
    model.eval()
    for sigma in (0.1, 0.7, 3.0, torch.tensor(0.2)):
        with torch.no_grad():
            model.denoise(torch.randn(5, *SHAPE), sigma)
    assert counter.frame_count == 2
    for images in (7, 8, 9, 11):
        with torch.no_grad():
            model.denoise(torch.randn(images, *SHAPE), 0.3)
    assert counter.frame_count == 3


def test_where_x_requires_a_gradient_the_eager_one_answers() -> None:
    """It alone can be differentiated again, as for a Hessian or a divergence."""
    model = make_model()
    x, vector = torch.randn(2, 4, *SHAPE)
    assert_close(
        model.require_energy().hessian_vector_product(x, 0.3, vector),
        without_compiler(model).require_energy().hessian_vector_product(x, 0.3, vector),
    )
    x.requires_grad_()
    denoised = model.denoise(x, 0.3)
    for row in torch.randn(2, *x.shape):
        torch.autograd.grad(denoised, x, row, retain_graph=True)
    assert counters["stats"]["unique_graphs"] == 0


@pytest.fixture
def one_rank() -> Iterator[None]:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


class Training(nn.Module):
    """As Lightning wraps it: DDP's forward is the training step."""

    def __init__(self, model: Denoiser, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: NoisyBatch) -> Tensor:
        return torch.stack(list(self.objective(self.model, batch).values())).sum()


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("objective", [pytest.param(DENOISING, marks=pytest.mark.slow), DUAL])
def test_trains_on_ranks_with_several_buckets(objective: Objective) -> None:
    model = make_model("wide mlp", compiler="aot_eager")
    batch = make_batch(model)
    expected = training_gradient(without_compiler(model), objective, batch)
    ranks = nn.parallel.DistributedDataParallel(Training(model, objective), bucket_cap_mb=1)
    for _ in range(2):  # DDP makes its buckets anew after the first step
        model.zero_grad()
        ranks(batch).backward()
        found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        assert (found - expected).norm() < 1e-4 * expected.norm()
    assert counters["stats"]["unique_graphs"] == 1


def test_weights_and_copies_know_of_no_compiler() -> None:
    model = make_model()
    plain = build_denoiser(NETWORKS["mlp"](), 0.5, "inner_product")
    names = list(plain.state_dict())
    x = torch.randn(3, *SHAPE)
    expected = model.denoise(x, 0.5)
    assert list(model.state_dict()) == names
    assert [name for name, _ in model.named_parameters()] == [
        n for n, _ in plain.named_parameters()
    ]
    assert model.describe() == plain.describe()
    plain.load_state_dict(model.state_dict())
    for twin in (plain, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_close(twin.denoise(x, 0.5), expected)


def wrong(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A compiler whose code changes every answer."""

    def compile(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        return lambda *given: tuple(change(answer) for answer in graph(*given))

    return compile


def failing(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    raise NotImplementedError("no such kernel\nand a long story")


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        (wrong(lambda answer: 1.1 * answer), "the compiled gradient differs .* by 1.0e-01"),
        (
            wrong(lambda answer: 1.1 * answer - 0.1 * answer.detach()),
            "the training gradient of the compiled gradient differs .* by 1.0e-01",
        ),
        (
            failing,
            r"gradient of EnergyDenoiser could not be compiled \(NotImplementedError: no such"
            r" kernel\); build the model with compile=False",
        ),
    ],
)
def test_a_failing_compiler_is_told_of_in_one_sentence(
    compiler: Callable[..., Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_model(compiler=compiler).denoise(torch.randn(3, *SHAPE), 0.5)


def test_code_that_cannot_be_traced_is_told_of_in_one_sentence() -> None:
    model = make_model("mlp", "unconstrained")
    model.get_submodule("backbone").register_forward_hook(lambda *_: print("a graph break"))
    with pytest.raises(UserError, match=r"_posterior_mean of .* could not be compiled \(\w.+\); "):
        model.denoise(torch.randn(3, *SHAPE), 0.5)
