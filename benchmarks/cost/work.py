"""What is timed: a training step and a denoiser call of any model with ``denoise``."""

from collections.abc import Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from energydiff.evaluation.cost import Work

Model = TypeVar("Model", bound=nn.Module)


def without_zeros(model: Model) -> Model:
    """The model with small random weights in the layers that begin at zero, in place."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


class Denoises(Protocol):
    """A model of ours, or another package's."""

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


def training_step(model: Denoises, clean: Tensor) -> Work:
    """Forward, loss, backward, clipping and AdamW, on noise levels of each image's own."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    sigma = torch.rand(len(clean), device=clean.device) + 0.1
    noisy = clean + sigma.view(-1, 1, 1, 1) * torch.randn_like(clean)

    def work() -> None:
        loss = (model.denoise(noisy, sigma) - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return work


def denoiser_call(model: Denoises, x: Tensor) -> Work:
    """One denoised batch under ``no_grad``."""
    sigma = torch.rand(len(x), device=x.device) + 0.1

    def work() -> None:
        with torch.no_grad():
            model.denoise(x, sigma)

    return work
