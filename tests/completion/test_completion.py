"""Masked completion: what may be looked at, what is returned, and an energy that falls."""

import pytest
import torch
from torch.testing import assert_close

from energydiff.completion import MaskedCompletion, complete
from energydiff.completion.fillings import fill_from_nearest, fill_with_mean, missing_error
from energydiff.errors import UserError


def network(**kwargs: object) -> MaskedCompletion:
    arguments = {"width": 12, "heads": 2, "head_width": 4, "memories": 9} | kwargs
    return MaskedCompletion((1, 6, 6), **arguments)  # type: ignore[arg-type]


def masked(net: MaskedCompletion, count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 1, 6, 6)
    return x, net.hide(torch.randn(count, 1, 6, 6), torch.linspace(0, 1, count))


def test_share_of_hidden_patches() -> None:
    """At least one patch is hidden and one is shown; in between, the share rounded."""
    _, hidden = masked(network())
    assert hidden.sum(1).tolist() == [1, 2, 4, 7, 8]
    pixels = network().pixels(hidden)
    assert pixels.shape == (5, 1, 6, 6)
    assert pixels.flatten(1).sum(1).tolist() == [4, 8, 16, 28, 32]


def test_hidden_pixels_are_not_looked_at_and_visible_ones_are_kept() -> None:
    net = network().eval()
    x, hidden = masked(net)
    missing = net.pixels(hidden)
    filled = complete(net, x, hidden).samples
    assert torch.equal(
        filled, complete(net, torch.where(missing, 9.0, x), hidden).samples.where(missing, x)
    )
    assert torch.equal(filled[~missing], x[~missing])


def test_without_shortened_steps_it_is_what_was_trained() -> None:
    net = network(step_size=0.01)
    x, hidden = masked(net)
    result = complete(net, x, hidden)
    missing = net.pixels(hidden)
    assert result.certificate.fallbacks == 0
    assert_close(result.samples[missing], net.patches.join(net(x, hidden))[missing])
    assert result.trace.energy.shape == (net.steps + 1, 5)
    assert_close(net.loss(x, hidden), missing_error(result.samples, x, missing))


def test_energy_falls_however_long_the_step() -> None:
    """Steps that plain descent could not take: shortened, each sample by itself, until E falls."""
    net = network(step_size=50.0, steps=10)
    with torch.no_grad():
        projection = net.block.attention.projection
        projection[1] = -projection[0]  # tokens repel each other, and all move at once
        net.block.memory.patterns.mul_(0.1)
    x, hidden = masked(net, 20)
    plain = net.block.descend(net.encode(x, hidden), net.steps, net.step_size)[1]
    assert (plain.diff(dim=0) > 0).any()  # or this test shows nothing
    result = complete(net, x, hidden)
    assert result.certificate.fallbacks > 0
    assert result.certificate.holds
    assert result.certificate.claim == "enforced"
    assert (result.trace.energy.diff(dim=0) <= 0).all()
    assert (result.trace.energy[-1] < result.trace.energy[0]).all()


def test_every_parameter_learns() -> None:
    net = network()
    net.loss(*masked(net)).mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_fillings_without_a_model() -> None:
    train = torch.tensor([[[[0.0, 0.0]]], [[[4.0, 8.0]]]])
    x = torch.tensor([[[[3.0, 1.0]]]])
    missing = torch.tensor([[[[False, True]]]])
    assert fill_with_mean(x, missing, train).tolist() == [[[[3.0, 4.0]]]]
    nearest = fill_from_nearest(x, missing, train)
    assert nearest.tolist() == [[[[3.0, 8.0]]]]  # the visible pixel decides, not the missing one
    assert missing_error(nearest, x, missing).tolist() == [49.0]
    assert missing_error(nearest, x, missing, power=1).tolist() == [7.0]


def test_user_errors() -> None:
    net = network()
    with pytest.raises(UserError, match="complete takes images"):
        complete(net, torch.zeros(2, 1, 6, 6), torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(UserError, match="one patch"):
        network(patch_size=6)
    with pytest.raises(UserError, match="at least 1"):
        network(steps=0)
