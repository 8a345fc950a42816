"""A peer's energy is ours: values, gradients and what a training step does to the weights."""

from importlib.util import find_spec

import pytest
import torch

from benchmarks.cost import plain
from benchmarks.cost.peers import PlainAutograd, peers_of
from benchmarks.cost.work import without_zeros
from energydiff.denoisers import EnergyDenoiser, build_denoiser
from energydiff.potentials import (
    MLP,
    EnergyTransformer,
    EnergyUNet,
    Network,
    PublishedEnergyTransformer,
    Transformer,
    UNet,
)

SHAPE = (1, 8, 8)
NETWORKS = {
    "MLP": lambda: MLP(SHAPE, 16, 2),
    "Transformer": lambda: Transformer(SHAPE, width=16, depth=2),
    "UNet": lambda: UNet(SHAPE, 8, (1, 2), 1, (4,)),
    "EnergyUNet": lambda: EnergyUNet(SHAPE, 8, (1, 2), 2, (4,)),
    "EnergyTransformer": lambda: EnergyTransformer(
        SHAPE, width=16, trunk=("convolution", "feedforward", "attention")
    ),
    "PublishedEnergyTransformer": lambda: PublishedEnergyTransformer(SHAPE, width=16, depth=2),
}


def energy_of(network: Network) -> EnergyDenoiser:
    kind = "inner_product" if isinstance(network, MLP | Transformer | UNet) else "scalar"
    model = without_zeros(build_denoiser(network, 0.5, kind)).double()
    assert isinstance(model, EnergyDenoiser)
    return model


def weight_gradients(
    model: EnergyDenoiser | PlainAutograd, x: torch.Tensor, sigma: torch.Tensor
) -> list[torch.Tensor | None]:
    """Of a denoising loss, in the network's order of parameters."""
    loss = (model.train().denoise(x, sigma) - 1).square().mean()
    loss.backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("peer", ["plain autograd", "torchebm"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_peer_has_the_same_energy_gradient_and_training_step(name: str, peer: str) -> None:
    if peer == "torchebm" and not find_spec("torchebm"):
        pytest.skip("torchebm is not installed")
    model = energy_of(NETWORKS[name]())
    theirs = peers_of(model)[peer]
    sigma = torch.tensor([0.1, 1.0, 5.0]).double()
    x = sigma.view(-1, 1, 1, 1) * torch.randn(3, *SHAPE).double()
    for training in (True, False):
        energy, gradient = model.train(training).value_and_grad(x, sigma)
        theirs.train(training)
        torch.testing.assert_close(theirs(x, sigma), energy, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(theirs.gradient(x, sigma), gradient, rtol=1e-10, atol=1e-10)
    ours = weight_gradients(model, x, sigma)
    assert any(grad is not None and grad.any() for grad in ours)
    torch.testing.assert_close(weight_gradients(theirs, x, sigma), ours, rtol=1e-9, atol=1e-10)


def test_another_energy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = plain.mlp
    monkeypatch.setitem(plain.POTENTIALS, MLP, lambda net, u, c: 1.001 * right(net, u, c))
    with pytest.raises(RuntimeError, match="by plain autograd differs"):
        peers_of(energy_of(MLP(SHAPE, 16, 1)))


def test_torchebm_leaves_the_precision_of_products_as_it_was() -> None:
    pytest.importorskip("torchebm")
    before = torch.get_float32_matmul_precision()
    peers_of(energy_of(MLP(SHAPE, 16, 1)))
    assert torch.get_float32_matmul_precision() == before
