"""A network that makes no energy is named, with what is wrong with it; every sound one passes."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from energydiff.errors import UserError
from energydiff.potentials import (
    MLP,
    Backbone,
    EnergyTransformer,
    EnergyUNet,
    InputConvex,
    PublishedEnergyTransformer,
    ScalarNetwork,
    TokenNetwork,
    Transformer,
    UNet,
    require_smooth,
)

SHAPE = (1, 4, 4)
OURS = {
    "MLP": lambda: MLP(SHAPE, 16, 1, num_classes=2),
    "UNet": lambda: UNet(SHAPE, 8, (1, 2), 1, (2,), 4),
    "Transformer": lambda: Transformer(SHAPE, width=16, depth=1, heads=2),
    "TokenNetwork": lambda: TokenNetwork(SHAPE, width=16, heads=2),
    "EnergyTransformer": lambda: EnergyTransformer(SHAPE, width=16, heads=2),
    "PublishedEnergyTransformer": lambda: PublishedEnergyTransformer(
        SHAPE, width=16, depth=1, heads=2
    ),
    "EnergyUNet": lambda: EnergyUNet(SHAPE, 8, (1, 2), 1, (2,), 4),
    "InputConvex": lambda: InputConvex(SHAPE, width=16, depth=2),
}


class Brought(Backbone):
    """Two layers around what is tried, the last of them at zero, as is usual."""

    def __init__(self, middle: Callable[[Tensor], Tensor], width: int = 16) -> None:
        super().__init__()
        self.shape, self.num_classes = SHAPE, 0
        size = math.prod(SHAPE)
        self.first, self.last = nn.Linear(size + 1, width), nn.Linear(width, size)
        self.middle = middle
        nn.init.zeros_(self.last.weight)

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.first(torch.cat([u.flatten(1), c[:, None]], 1))
        return self.last(self.middle(h)).view_as(u)


def attention(h: Tensor) -> Tensor:
    tokens = h.view(len(h), 1, 4, 4)
    return F.scaled_dot_product_attention(tokens, tokens, tokens).flatten(1)


class Cut(torch.autograd.Function):
    """x³ with a backward that autograd cannot go through, and that raises nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 3 * ctx.saved_tensors[0].detach() ** 2


SMOOTH = {
    "silu": F.silu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "squared relu": lambda h: F.relu(h).square(),
    "dropout in training": nn.Sequential(nn.SiLU(), nn.Dropout(0.5)),
    "float32 inside": lambda h: F.silu(h.float()),  # as the times of DiT are embedded
    "layer norm": nn.Sequential(nn.LayerNorm(16), nn.SiLU()),
    "elu": F.elu,
    "spectral norm": nn.Sequential(parametrizations.spectral_norm(nn.Linear(16, 16)), nn.SiLU()),
    "sigmoid in float32": lambda h: h.float().sigmoid().to(torch.float32).to(h.dtype) * h,
    "a table in float32": lambda h: F.silu(h @ torch.eye(16, dtype=torch.float32)),
}
BROKEN = {
    "relu module": (nn.ReLU(), "jumps.*ReLU"),
    "relu": (F.relu, "jumps.*Relu"),
    "leaky relu": (nn.LeakyReLU(), "jumps.*LeakyReLU"),
    "absolute value": (torch.abs, "jumps.*Abs"),
    "max pooling": (lambda h: F.max_pool1d(h[:, None], 3, 1, 1)[:, 0], "jumps"),
    "fused attention": (attention, "second derivative"),
    "a clamp": (lambda h: h.clamp(-0.5, 0.5), "jumps.*Clamp"),
    "a round": (lambda h: h + h.round(), "jumps.*Round"),
    "no_grad": (lambda h: h * torch.no_grad()(torch.sigmoid)(h), "not that of its value"),
    "noise": (lambda h: F.silu(h + torch.randn_like(h)), "in eval mode two calls differ"),
    "a mean over samples": (lambda h: F.silu(h - h.mean(0)), "depends on the rest of its batch"),
    "a backward that is cut": (lambda h: Cut.apply(h), "second derivative is not that of its"),
    "a detach": (lambda h: F.silu(h) * h.detach(), "gradient"),
    "dropout at sampling": (lambda h: F.dropout(F.silu(h), 0.5, training=True), "[Dd]ropout|agree"),
    "batch norm": (nn.Sequential(nn.BatchNorm1d(16), nn.SiLU()), "BatchNorm1d"),
}


@pytest.mark.parametrize("name", OURS)
def test_the_packages_own_networks_are_smooth(name: str) -> None:
    require_smooth(OURS[name]())


@pytest.mark.parametrize("name", SMOOTH)
def test_what_can_be_differentiated_twice_passes(name: str) -> None:
    require_smooth(Brought(SMOOTH[name]))


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_is_named_in_a_sentence(name: str) -> None:
    middle, message = BROKEN[name]
    with pytest.raises(UserError, match=message) as refusal:
        require_smooth(Brought(middle))
    assert "Brought makes no energy" in str(refusal.value) and "\n" not in str(refusal.value)


class Quartic(ScalarNetwork):
    """φ = ‖u‖⁴/4 with the gradient ‖u‖²u, ``factor`` times as large, or with ‖u‖² cut off."""

    def __init__(self, factor: float = 1.0, cut: bool = False) -> None:
        super().__init__()
        self.shape, self.num_classes, self.factor, self.cut = (3,), 0, factor, cut

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return u.square().sum(1).square() / 4

    def value_and_grad(self, u, c, label=None):
        square = u.square().sum(1, keepdim=True)
        return self(u, c), self.factor * (square.detach() if self.cut else square) * u

    def value_and_grads(self, u, c, label=None):
        return *self.value_and_grad(u, c), torch.zeros_like(c)


class TwoGradients(Quartic):
    def grad(self, u, c, label=None):
        return 2 * super().grad(u, c)


def test_a_gradient_of_something_else_is_found() -> None:
    require_smooth(Quartic())
    with pytest.raises(UserError, match="its grad is not the gradient of its value_and_grad"):
        require_smooth(TwoGradients())
    with pytest.raises(UserError, match="value_and_grad is not the gradient of its forward"):
        require_smooth(Quartic(factor=2.0))
    with pytest.raises(UserError, match="second derivative is not that of its gradient"):
        require_smooth(Quartic(cut=True))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_mode_of_the_caller_does_not_matter(mode: Callable[[], Any]) -> None:
    network, kinked = Brought(F.silu), Brought(F.relu)
    with mode():
        require_smooth(network)
        with pytest.raises(UserError, match="jumps"):
            require_smooth(kinked)


def test_the_check_leaves_weights_mode_and_random_state_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def moved(seed: int) -> None:
        raise AssertionError("the random state of an accelerator moved")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", moved)
    network = Brought(F.silu).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    require_smooth(network)
    assert torch.equal(state, torch.random.get_rng_state()) and network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
