"""The package's energies in PyTorch's own functions, with the same weights, and nothing by hand.

Each function computes what the network of the same name computes, as one writes it down when
autograd is to do the rest: ``F.layer_norm``, ``F.group_norm``, ``F.gelu``, attention by products
and a softmax (fused kernels have no second derivative), logsumexp over whole N×N matrices.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from energydiff.denoisers import EnergyDenoiser
from energydiff.potentials import (
    MLP,
    EnergyTransformer,
    EnergyUNet,
    PublishedEnergyTransformer,
    Transformer,
    UNet,
)
from energydiff.potentials.token_blocks import Attention, Convolution, FeedForward


class PlainEnergy(nn.Module):
    """E(x, σ), (B,), of a denoiser whose gauge is zero, made for autograd alone.

    Args:
        model: an energy of one of the networks here; its weights are copied.
    """

    def __init__(self, model: EnergyDenoiser) -> None:
        super().__init__()
        # Channels last, which our U-Nets are in, makes PyTorch's group norm slower.
        self.network = copy.deepcopy(model.potential.backbone).to(
            memory_format=torch.contiguous_format
        )
        self.sigma_data = model.sigma_data

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        variance = sigma.square() + self.sigma_data**2
        u = x * variance.rsqrt().view(-1, 1, 1, 1)
        phi = POTENTIALS[type(self.network)](self.network, u, 0.25 * sigma.log())
        gaussian = 0.5 * (_total(u * u) + x[0].numel() * torch.log(2 * math.pi * variance))
        return gaussian - self.sigma_data / sigma * phi


def mlp(net: Any, u: Tensor, c: Tensor) -> Tensor:
    embedding = F.silu(net.conditioning(c, None))
    h = net.input(u.flatten(1))
    for block in net.blocks:
        scale, shift = block.modulation(embedding).chunk(2, -1)
        h = h + block.contract(F.gelu(block.expand(_modulated(h, scale, shift))))
    return _inner_product(u, net.output(_layer_norm(h)).view_as(u))


def transformer(net: Any, u: Tensor, c: Tensor) -> Tensor:
    p = net.patch_size
    embedding = F.silu(net.conditioning(c, None))[:, None]
    patches = rearrange(u, "b c (y p) (x q) -> b (y x) (c p q)", p=p, q=p)
    h = net.input(patches) + net.positions
    for block in net.blocks:
        s1, b1, g1, s2, b2, g2 = block.modulation(embedding).chunk(6, -1)
        q, k, v = rearrange(
            block.qkv(_modulated(h, s1, b1)), "b t (n h d) -> n b h t d", n=3, h=block.heads
        )
        mixed = rearrange(_attended(q, k, v), "b h t d -> b t (h d)")
        h = h + g1 * block.projection(mixed)
        h = h + g2 * block.contract(F.gelu(block.expand(_modulated(h, s2, b2))))
    scale, shift = net.output_modulation(embedding).chunk(2, -1)
    return 0.5 * _total(patches * net.output(_modulated(h, scale, shift)))


def unet(net: Any, u: Tensor, c: Tensor) -> Tensor:
    embedding = F.silu(net.conditioning(c, None))

    def stage(stage: Any, x: Tensor) -> Tensor:
        scale, shift = stage.modulation(embedding).chunk(2, 1)
        h = _scaled_norm_silu(stage.first(_norm_silu(x, stage.norm)), scale, shift, stage.groups)
        h = 0.5**0.5 * (stage.skip(x) + stage.second(h))
        if stage.attention is None:
            return h
        qkv = stage.attention.qkv(stage.attention.norm(h))
        heads = rearrange(qkv, "b (n h d) y x -> n b h (y x) d", n=3, d=stage.attention.head_width)
        mixed = rearrange(_attended(*heads), "b h (y x) d -> b (h d) y x", y=h.shape[2])
        return 0.5**0.5 * (h + stage.attention.projection(mixed))

    h = net.input(u)
    skips = [h]
    for level, stages in enumerate(net.down):
        if level > 0:
            h = F.avg_pool2d(h, 2)
            skips.append(h)
        for block in stages:
            h = stage(block, h)
            skips.append(h)
    h = stage(net.middle, h)
    for level, stages in enumerate(net.up):
        if level > 0:
            h = F.interpolate(h, scale_factor=2.0, mode="nearest")
        for block in stages:
            h = stage(block, torch.cat([h, skips.pop()], 1))
    return _inner_product(u, net.output(_norm_silu(h, net.output_norm)))


def energy_unet(net: Any, u: Tensor, c: Tensor) -> Tensor:
    of_start, *of_blocks = net.conditioning(c, None)
    t = net.input(u)
    y = _scaled_norm_silu(t, *of_start.chunk(2, 1), net.start.groups)
    inputs = [(t, y)]
    while len(inputs) < len(net.levels):
        t, y = F.avg_pool2d(t, 2), F.avg_pool2d(y, 2)
        inputs.append((t, y))
    phi, heard, vectors = u.new_zeros(len(u)), None, iter(of_blocks)
    for level, (t, y) in reversed(list(zip(net.levels, inputs, strict=True))):
        if heard is not None:
            y = 0.5**0.5 * (y + F.interpolate(level.hear(heard), scale_factor=2.0))
        h = t
        for block in level.blocks:
            scale, shift, *of_norm = next(vectors).chunk(4, 1)
            inner = _scaled_norm_silu(block.first(y), scale, shift, block.inner.groups)
            through = h if block.skip is None else block.skip(h)
            h = 0.5**0.5 * through + block.second(inner)
            if block.attention is not None:
                tokens = h.flatten(2).mT
                update = _token_update(block.attention, _rms_norm(tokens), tokens)
                h = (tokens + update).mT.reshape(h.shape)
            y = _scaled_norm_silu(h, *of_norm, block.norm.groups)
            phi = phi + _total(block.readout.memory * y.square())
            phi = phi + _total(block.readout.inner(y) * t)
        heard = y
    return phi


def energy_transformer(net: Any, u: Tensor, c: Tensor) -> Tensor:
    first, *vectors = net.conditioning(c, None)
    t = h = net.patches(u) @ net.embedding + net.positions + first[:, None]
    for block, e in zip(net.trunk.blocks, vectors, strict=False):
        h = h + _token_update(block, _rms_norm(h), e)
    y = _rms_norm(h)
    phi = _total(y @ net.inner * t)
    attention, memory = net.terms
    to_attention, to_memory = vectors[-2:]
    return (
        phi - _attention_energy(attention, y, to_attention) - _memory_energy(memory, y, to_memory)
    )


def published_energy_transformer(net: Any, u: Tensor, c: Tensor) -> Tensor:
    first, to_scale, *vectors = net.conditioning(c, None)
    t = net.patches(u) @ net.embedding + net.positions + first[:, None]
    energies = []
    for block, e in zip(net.blocks, vectors, strict=True):
        g = block.norm.log_gamma.exp() * _layer_norm(t) + block.norm.delta
        to_attention, to_memory = e.split([block.attention.size, block.memory.size], -1)
        energies.append(
            _attention_energy(block.attention, g, to_attention)
            + _memory_energy(block.memory, g, to_memory)
        )
    return -((net.log_scale + to_scale).exp() * torch.stack(energies, 1)).sum(1)


POTENTIALS: dict[type[nn.Module], Callable[[Any, Tensor, Tensor], Tensor]] = {
    MLP: mlp,
    Transformer: transformer,
    UNet: unet,
    EnergyUNet: energy_unet,
    EnergyTransformer: energy_transformer,
    PublishedEnergyTransformer: published_energy_transformer,
}


def _total(x: Tensor) -> Tensor:
    """Of each sample, (B,)."""
    return x.flatten(1).sum(1)


def _inner_product(u: Tensor, raw: Tensor) -> Tensor:
    return 0.5 * _total(u * raw)


def _layer_norm(h: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:])


def _rms_norm(h: Tensor) -> Tensor:
    return F.rms_norm(h, h.shape[-1:], eps=1e-5)


def _modulated(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, _layer_norm(h), 1 + scale)


def _norm_silu(x: Tensor, norm: Any) -> Tensor:
    return F.silu(F.group_norm(x, norm.groups, norm.weight, norm.bias))


def _scaled_norm_silu(x: Tensor, scale: Tensor, shift: Tensor, groups: int) -> Tensor:
    normed = F.group_norm(x, groups)
    return F.silu(torch.addcmul(shift[..., None, None], normed, 1 + scale[..., None, None]))


def _attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, -1) @ v


def _token_update(block: Any, y: Tensor, e: Tensor) -> Tensor:
    match block:
        case Convolution():
            maps = y.mT.unflatten(2, block.grid)
            return F.conv2d(maps, block.kernel, padding=1, groups=len(block.kernel)).flatten(2).mT
        case FeedForward():
            return F.relu(y @ block.expand + e[:, None]).square() @ block.contract
        case Attention():
            q, k, v = rearrange(y @ block.qkv, "b t (n h d) -> n b h t d", n=3, h=block.heads)
            return rearrange(_attended(q, k, v), "b h t d -> b t (h d)") @ block.project
    raise TypeError(type(block))


def _attention_energy(term: Any, g: Tensor, e: Tensor) -> Tensor:
    heads, head_width = term.projection.shape[1:3]
    q, k = rearrange(g @ term.projection.flatten(0, 2).mT, "b n (t h y) -> t b h n y", t=2, h=heads)
    beta = head_width**-0.5 * e.exp()
    lse = (beta[..., None, None] * q @ k.mT).logsumexp(-1)
    return -(term.weights / beta * lse.sum(-1)).sum(1)


def _memory_energy(term: Any, g: Tensor, e: Tensor) -> Tensor:
    z = (g @ term.patterns.mT + e[:, None]).relu()
    return -0.5 * _total(term.weights * z.square())
