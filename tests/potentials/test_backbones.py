"""Backbones: what they record of themselves and what they refuse."""

import inspect

import pytest
import torch

from energydiff.errors import UserError
from energydiff.potentials import MLP, Backbone, TokenNetwork, Transformer, UNet

EVERY = [
    MLP((1, 4, 4), 8),
    UNet((1, 4, 4), 4, (1, 2), 1, attention_resolutions=(2,), head_width=4),
    Transformer((1, 4, 4), width=8),
    TokenNetwork((1, 4, 4), width=8, trunk=("convolution", "attention", "feedforward"), heads=2),
]
every_backbone = pytest.mark.parametrize("backbone", EVERY, ids=lambda b: type(b).__name__)


@every_backbone
def test_the_config_is_every_argument_of_the_constructor(backbone: Backbone) -> None:
    assert list(backbone.config) == list(inspect.signature(type(backbone)).parameters)


@every_backbone
def test_the_config_builds_the_same_network(backbone: Backbone) -> None:
    again = type(backbone)(**backbone.config)
    shapes = {name: value.shape for name, value in backbone.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes


@every_backbone
def test_the_output_is_like_the_input(backbone: Backbone) -> None:
    assert backbone(torch.randn(2, 1, 4, 4), torch.zeros(2)).shape == (2, 1, 4, 4)


@every_backbone
def test_the_output_is_bounded(backbone: Backbone) -> None:
    """Normalised features and a linear map: what makes a coercive noise-blind energy coercive."""
    torch.manual_seed(0)
    for parameter in backbone.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    u, c = torch.randn(2, 1, 4, 4).double(), torch.zeros(2).double()
    near, far, farther = (backbone.double()(scale * u, c).norm() for scale in (1.0, 1e4, 1e8))
    assert far < 10 * near
    assert abs(farther - far) < 1e-2 * far


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UNet((12,)), "use the MLP"),
        (lambda: Transformer((12,)), "use the MLP"),
        (lambda: UNet((1, 6, 8), 4, (1, 2, 2)), "image size 6"),
        (lambda: UNet((1, 8, 6), 4, (1, 2, 2)), "image size 6"),
        (lambda: UNet((1, 4, 4), 6, (1,), attention_resolutions=(4,), head_width=4), "head_width"),
        (lambda: Transformer((1, 6, 8), patch_size=4), "patch_size 4"),
        (lambda: Transformer((1, 8, 6), patch_size=4), "patch_size 4"),
        (lambda: Transformer((1, 8, 8), width=30, heads=4), "heads 4"),
    ],
)
def test_a_shape_that_cannot_work_is_refused_with_its_number(build, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()
