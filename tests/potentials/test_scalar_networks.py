"""Scalar networks: their written-out gradients, and what they refuse."""

import itertools
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.errors import UserError
from energydiff.potentials import (
    EnergyTransformer,
    EnergyUNet,
    PublishedEnergyTransformer,
    ScalarNetwork,
    TokenNetwork,
    Transformer,
)

TRUNKS = ([], ["attention"], ["convolution", "feedforward", "attention"])
READOUTS = (["attention"], ["memory"], ["inner_product"], ["inner_product", "memory", "attention"])
SMALL = {"patch_size": 2, "width": 8, "heads": 2, "num_classes": 3}
DESIGNS: dict[str, Callable[[], ScalarNetwork]] = {
    f"{'-'.join(trunk)}+{'-'.join(readout)}": partial(
        EnergyTransformer, (2, 6, 4), trunk=trunk, readout=readout, **SMALL
    )
    for trunk, readout in itertools.product(TRUNKS, READOUTS)
} | {
    f"published-{activation}-{self_excluded}": partial(
        PublishedEnergyTransformer,
        (2, 6, 4),
        depth=2,
        activation=activation,
        self_excluded=self_excluded,
        **SMALL,
    )
    for activation, self_excluded in (("relu2", False), ("softmax", True))
}
DESIGNS |= {
    f"unet-{blocks}-{name}": partial(
        EnergyUNet,
        (2, 6, 4),
        channels=8,
        multipliers=(1, 2),
        blocks=blocks,
        attention_resolutions=attention,
        head_width=8,
        num_classes=3,
    )
    for blocks, name, attention in ((1, "plain", ()), (2, "attention", (3,)))
}
DESIGNS["unet-waves"] = partial(
    EnergyUNet,
    (2, 6, 4),
    channels=8,
    multipliers=(1, 2),
    blocks=1,
    num_classes=3,
    periods=(0.5, 3.0),
)
every_design = pytest.mark.parametrize("design", DESIGNS)


def network(design: str, dtype: torch.dtype) -> ScalarNetwork:
    net = DESIGNS[design]()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.to(dtype)


def arguments(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    c = torch.tensor([-0.5, 0.0, 0.4], dtype=dtype)
    return torch.randn(3, 2, 6, 4, dtype=dtype), c, torch.tensor([-1, 0, 2])


def autograds(net: ScalarNetwork, u: Tensor, c: Tensor, label: Tensor) -> Tensor:
    u = u.clone().requires_grad_()
    return torch.autograd.grad(net(u, c, label).sum(), u, create_graph=True)[0]


@every_design
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_the_written_out_gradient_is_autograds(
    design: str, dtype: torch.dtype, error: float
) -> None:
    net, (u, c, label) = network(design, dtype), arguments(dtype)
    value, grad = net.value_and_grad(u, c, label)
    expected = autograds(net, u, c, label)
    assert ((grad - expected).norm() / expected.norm()).item() < error
    assert torch.equal(value, net(u, c, label))


@every_design
def test_the_gradient_alone_is_the_same(design: str) -> None:
    net, (u, c, label) = network(design, torch.float64), arguments(torch.float64)
    recorded = net.grad(u, c, label)
    assert torch.equal(recorded, net.value_and_grad(u, c, label)[1])
    with torch.no_grad():
        assert_close(net.grad(u, c, label), recorded, rtol=1e-12, atol=1e-14)


@every_design
def test_training_through_it_is_training_through_a_double_backward(
    design: str,
) -> None:
    net, (u, c, label) = network(design, torch.float64), arguments(torch.float64)
    parameters = [p for name, p in net.named_parameters()]
    target = torch.randn_like(u)
    written, double = (
        torch.autograd.grad(
            (grad - target).square().sum(), parameters, allow_unused=True, materialize_grads=True
        )
        for grad in (net.value_and_grad(u, c, label)[1], autograds(net, u, c, label))
    )
    for one, other in zip(written, double, strict=True):
        assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_call_without_gradients_keeps_no_graph(frozen: bool) -> None:
    model = build_denoiser(network("attention+memory", torch.float32), 0.6, "scalar").eval()
    x = torch.randn(2, 2, 6, 4)
    model.requires_grad_(not frozen)
    for answer in (*model.value_and_grad(x, 0.5), model.denoise(x, 0.5)):
        assert not answer.requires_grad


def test_under_inference_mode_the_gradient_is_the_same() -> None:
    model = build_denoiser(network("attention+memory", torch.float32), 0.6, "scalar").eval()
    x = torch.randn(2, 2, 6, 4)
    with torch.inference_mode():
        inside = model.score(x.clone(), 0.5)
    assert torch.equal(inside, model.score(x, 0.5))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EnergyTransformer((12,)), "EnergyTransformer takes images"),
        (lambda: TokenNetwork((1, 6, 8), patch_size=4), "image size 6"),
        (lambda: EnergyUNet((12,)), "EnergyUNet takes images"),
        (
            lambda: EnergyUNet((1, 8, 6)),
            r"image size 6 must be divisible by 2\^\(levels - 1\) of 3",
        ),
        (
            lambda: EnergyUNet((1, 8, 8), 48, attention_resolutions=(8,)),
            "channels 48 must be divisible by head_width 32",
        ),
        (lambda: EnergyTransformer((1, 8, 8), trunk=["mlp"]), "no block 'mlp'"),
        (lambda: EnergyTransformer((1, 8, 8), readout=[]), "choose some of attention, memory"),
        (lambda: EnergyTransformer((1, 8, 8), readout=["sum"]), r"readout is \['sum'\]"),
        (
            lambda: build_denoiser(EnergyTransformer((1, 8, 8)), 0.6, "inner_product"),
            "EnergyTransformer is a scalar",
        ),
        (
            lambda: build_denoiser(Transformer((1, 8, 8)), 0.6, "scalar"),
            "Transformer is a vector field",
        ),
        (
            lambda: build_denoiser(EnergyTransformer((1, 8, 8)), 0.6, "unconstrained"),
            "no unconstrained form",
        ),
    ],
)
def test_a_mistake_is_one_sentence(build, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()
