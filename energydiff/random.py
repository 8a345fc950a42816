"""Randomness keyed by what it belongs to, not by when it was asked for.

A diffusion run draws noise for *this* training image and for *that* sample. Number j of the draw
(seed, index, stream) is a function of these four alone (Philox4x32-10, a generator that counts:
Salmon et al. 2011): the same whatever the batch size, the number of ranks or the point at which a
run was resumed. It is computed where it is used, in PyTorch's integers, whose bits are the same on
every device; only the logarithm and the sines of normal numbers are the device's own, in float64.

``indices`` are integers of 64 bits, signed or not: an int64 tensor on any device, or any iterable
of Python's. What is drawn lies where they do. A key is for one draw: normal and uniform numbers of
the same key are made of the same bits.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

# Streams keep the uses of one (seed, index) apart: the order of the training images; their noise;
# their σ, hidden label and flip; the noise of held-out images; of samples; …
ORDER, TRAINING, CHOICES, HELD_OUT, SAMPLING, CALIBRATION, PROBE, CORRUPTION, TRACE, LIKELIHOOD = (
    range(10)
)
SHARDS = 10  # the order of the shards in a pass

# What files call this way to draw; another one has another name.
RULE = "philox4x32-10"

Indices = Iterable[int] | Tensor

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85  # what the two words of the key grow by, each round
_WORD = 0xFFFFFFFF
_CHUNK = 1 << 20  # normal numbers at a time


def keyed_normal(
    seed: int,
    indices: Indices,
    shape: tuple[int, ...],
    stream: int = SAMPLING,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise, one independent draw per index: (len(indices), \\*shape).

    Box & Muller 1958 in float64 from 32 bits, so |z| < 6.8; other types are rounded from that.
    While it is drawn, noise takes its size again and some 40 MiB, or what one index needs.
    """
    indices, size = as_indices(indices), math.prod(shape)
    device = indices.device
    if device.type == "mps":  # which has no float64
        indices = indices.cpu()
    parts = indices.split(max(1, _CHUNK // max(1, size)))
    noise = torch.cat([_normal(philox(seed, part, size, stream), size, dtype) for part in parts])
    return noise.view(len(indices), *shape).to(device)


def keyed_uniform(seed: int, indices: Indices, number: int, stream: int) -> Tensor:
    """Uniform numbers inside (0, 1), as :func:`open_unit` has them: (len(indices), number)."""
    return open_unit(_row(philox(seed, as_indices(indices), number, stream), number))


def keyed_signs(seed: int, indices: Indices, shape: tuple[int, ...], stream: int = TRACE) -> Tensor:
    """Rademacher noise, ±1 with equal chance: (len(indices), \\*shape), float32."""
    uniform = keyed_uniform(seed, indices, math.prod(shape), stream)
    return torch.where(uniform < 0.5, -1.0, 1.0).view(len(uniform), *shape)


def keyed_order(seed: int, indices: Indices, size: int, stream: int) -> Tensor:
    """A random permutation of ``range(size)`` per index: (len(indices), size), int64."""
    words = _row(philox(seed, as_indices(indices), size, stream), size)
    return words.argsort(dim=1, stable=True)


def open_unit(words: Tensor) -> Tensor:
    """The lowest 32 bits of int64 as odd multiples of 2⁻²⁴, float32 inside (0, 1), so that every
    quantile is finite."""
    return (((words & _WORD) >> 9).float() + 0.5) * 2.0**-23


def as_indices(indices: Indices) -> Tensor:
    """As an int64 tensor; Python's integers are taken modulo 2⁶⁴."""
    if not isinstance(indices, Tensor):
        wrapped = [(int(i) + (1 << 63)) % (1 << 64) - (1 << 63) for i in indices]
        return torch.tensor(wrapped, dtype=torch.int64)
    return indices.long()


def philox(seed: int, indices: Tensor, number: int, stream: int) -> tuple[Tensor, ...]:
    """Four tensors of words of 32 bits in int64, (len(indices), ⌈number / 4⌉) each."""
    block = torch.arange(-(-number // 4), device=indices.device)[None]
    index = indices[:, None]
    # A compiler may overflow where it multiplies what counts: the block is where it does not.
    counter = index & _WORD, block, (index >> 32) & _WORD, torch.full_like(block, stream)
    return philox4x32(counter, (seed & _WORD, (seed >> 32) & _WORD))


def philox4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]
) -> tuple[Tensor, ...]:
    """Ten rounds of Salmon et al. 2011, §4.3, on words of 32 bits in int64 that broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        low0, high0 = _product(c0, _MULTIPLIERS[0])
        low1, high1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def _product(words: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The low and the high word of words × factor. int64 must not overflow, which compilers rely
    on: (factor − 2³²) × words does not, for factors above 2³¹, and lacks words × 2³²."""
    product = words * (factor - (1 << 32))
    return product & _WORD, (product >> 32) + words


def _normal(words: tuple[Tensor, ...], size: int, dtype: torch.dtype) -> Tensor:
    """(B, size)."""
    normal = []
    for u, v in (words[:2], words[2:]):
        radius = ((u.double() + 0.5) * 2.0**-32).log().mul(-2).sqrt()
        angle = v.double() * (2 * math.pi * 2.0**-32)
        normal += [(radius * angle.cos()).to(dtype), (radius * angle.sin()).to(dtype)]
    return _row(normal, size)


def _row(words: Sequence[Tensor], size: int) -> Tensor:
    """Number 4i + j from number i of tensor j, (B, size)."""
    return torch.stack(list(words), -1).flatten(1)[:, :size]


def sample_seed(seed: int, number: int) -> int:
    """The seed of one sample of a set; distinct for distinct (seed, number)."""
    return (seed << 32) + number
