"""A sample depends on its seed alone: not on its batch, and not on its place in it."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.denoisers import build_denoiser
from energydiff.energies import Denoiser
from energydiff.potentials import MLP, Transformer, UNet
from energydiff.random import keyed_normal
from energydiff.sampling import Euler, Heun, Sampler, karras_sigmas

SIGMAS = karras_sigmas(5, 0.05, 10.0)
SHAPE = (1, 4, 4)
NETWORKS = {
    "mlp": lambda: MLP(SHAPE, width=16, depth=1),
    "unet": lambda: UNet(SHAPE, 8, (1, 2), 1, attention_resolutions=(2,)),
    "transformer": lambda: Transformer(SHAPE, width=16, depth=1, heads=2),
}


def model_of(network: str, parametrization: str) -> Denoiser:
    model = build_denoiser(NETWORKS[network](), 0.5, parametrization).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def in_batches(sampler: Sampler, model: Denoiser, seeds: list[int], size: int) -> Tensor:
    """Samples in the order of their seeds, drawn in batches."""
    batches = [seeds[i : i + size] for i in range(0, len(seeds), size)]
    drawn = torch.cat([sampler(model, seeds=batch).samples for batch in batches])
    return drawn[torch.tensor(seeds).argsort()]


@pytest.mark.parametrize("sampler", [Euler, Heun])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("parametrization", ["inner_product", "unconstrained"])
def test_batches_do_not_matter(sampler: type[Sampler], network: str, parametrization: str) -> None:
    model, run = model_of(network, parametrization), sampler(SIGMAS)
    whole = in_batches(run, model, list(range(64)), 64)
    shuffled = torch.randperm(64).tolist()
    assert_close(in_batches(run, model, shuffled, 7), whole, rtol=1e-5, atol=1e-5)


def test_the_starting_noise_is_bitwise_the_seeds_own() -> None:
    starts: list[Tensor] = []
    seeds = [5, 0, 2**40, 3]
    Euler(SIGMAS)(
        model_of("mlp", "inner_product"),
        seeds=seeds,
        on_step=lambda done, point: starts.append(point.x) if done == 0 else None,
    )
    for row, seed in zip(starts[0], seeds, strict=True):
        assert torch.equal(row, 10.0 * keyed_normal(0, [seed], SHAPE)[0])
