"""Half a U-Net as an energy: a decoder read out at every level, whose reverse pass is the encoder.

With t a convolution of the image and t_l its average pool at level l, residual blocks run from the
coarsest level to the finest. Each level begins anew from h = t_l; of the coarser ones it hears
through y = silu(GroupNorm(h)), which its blocks take and are read out by:

    φ = Σ_blocks Σ_pixels ⟨W y, t_l⟩ + ⟨w, y²⟩

an inner product and a memory term. ∇φ runs from the finest level back to the coarsest, and what a
level is read out with enters there as a skip connection would: the gradient of half a U-Net is a
U-Net. The reverse pass is linear in what it carries, so it is on the way to φ that the fine must be
weighed by the coarse. All of it is written out with ordinary operations: training is one ordinary
backward.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energydiff.potentials.backbone import require_image
from energydiff.potentials.conditioned_scalar import ConditionedScalar
from energydiff.potentials.energy_unet_blocks import SHARE, Block, Conv, NormSiLU, wide
from energydiff.potentials.groupnorm_silu import Saved
from energydiff.potentials.unet import doubled, require_levels
from energydiff.potentials.waves import Waves


class EnergyUNet(ConditionedScalar):
    """The decoder of a U-Net, read out after every block.

    Args:
        shape: (C, H, W) of one image; H and W divisible by 2^(levels − 1).
        channels: width of the finest level.
        multipliers: width of each level, from the finest, as a multiple of ``channels``; resolution
            halves between levels.
        blocks: residual blocks per level.
        attention_resolutions: image heights at which each block is followed by self-attention;
            a height that no level has is passed over.
        head_width: channels per attention head.
        num_classes: class labels, 0 for none.
        periods: of waves of the values that the network sees beside them, in model coordinates
            (:class:`~energydiff.potentials.waves.Waves`): for values on a grid its spacing, and
            twice that.

    Raises:
        UserError: arguments that fit no such network.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        channels: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 2,
        attention_resolutions: tuple[int, ...] = (),
        head_width: int = 32,
        num_classes: int = 0,
        periods: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        require_image("EnergyUNet", shape)
        require_levels(shape, len(multipliers))
        self.shape, self.num_classes = tuple(shape), num_classes
        self.waves = Waves(periods) if periods else None
        seen = shape[0] * (1 if self.waves is None else self.waves.channels)
        self.input = Conv(seen, channels, 3)
        self.start = NormSiLU(channels)
        widths = [channels * multiplier for multiplier in multipliers]
        self.levels = nn.ModuleList()
        for depth, width in enumerate(widths):
            coarser = widths[depth + 1] if depth + 1 < len(widths) else None
            attention = head_width if shape[1] // 2**depth in attention_resolutions else None
            self.levels.append(_Level(channels, width, coarser, blocks, attention))
        self.condition(4 * channels, [self.start.size, *(block.size for block in self.blocks())])
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def blocks(self) -> list[Block]:
        """All of them, from the coarsest level."""
        return [block for level in reversed(self._levels()) for block in level.each()]

    def parts(self) -> list[tuple[nn.Module, Sequence[str]]]:
        return [(level, ("value", "pullback")) for level in self._levels()]

    def vectors(self, c: Tensor, label: Tensor | None) -> tuple[Tensor, ...]:
        """Of the norms, and last, where there are waves, their scales."""
        norms = super().vectors(c, label)
        return norms if self.waves is None else (*norms, self.waves.scales(c, self.sigma_data))

    def value(self, u: Tensor, e: Sequence[Tensor]) -> Tensor:
        seen, norms = self._see(u, e)
        return self._total(self._climb(seen, norms)[0])

    def pull(self, u: Tensor, e: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        seen, norms = self._see(u, e)
        passed, first = self._climb(seen, norms)
        phi = self._total(passed)
        to_u, of_norms = self._descend(passed, first)
        to_e = [torch.cat(parts, 1) for parts in of_norms]
        if self.waves is not None:
            to_u, to_scales = self.waves.pullback(to_u, u, e[-1])
            to_e.append(to_scales)
        return phi, to_u, to_e

    def grad(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        e = self.vectors(c, label)
        to_u, _ = self._descend(*self._climb(*self._see(u, e)))
        return to_u if self.waves is None else self.waves.pullback(to_u, u, e[-1])[0]

    def _see(self, u: Tensor, e: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """What the first convolution is given, and the vectors of the norms."""
        return (u, e) if self.waves is None else (self.waves(u, e[-1]), e[:-1])

    def _climb(self, u: Tensor, e: Sequence[Tensor]) -> tuple[list["_Passed"], Saved]:
        """What every level keeps, from the coarsest, and what the first norm does."""
        of_start, *of_blocks = e
        t = self.input(u.contiguous(memory_format=torch.channels_last))
        y, first = self.start(t, of_start)
        levels = self._levels()
        ts, ys = (_pyramid(x, len(levels)) for x in (t, y))
        passed, heard, vectors = [], None, iter(of_blocks)
        for level in reversed(levels):
            heard, kept = level(ts.pop(), ys.pop(), heard, vectors)
            passed.append(kept)
        return passed, first

    def _total(self, passed: Sequence["_Passed"]) -> Tensor:
        """φ."""
        levels = zip(reversed(self._levels()), passed, strict=True)
        return torch.stack([level.value(kept) for level, kept in levels]).sum(0)

    def _descend(
        self, passed: list["_Passed"], first: Saved
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """∂φ/∂ what the first convolution was given, and ∂φ/∂ the norms' vectors, each in parts;
        what was kept is freed on the way."""
        to_ts, to_ys, to_heard, to_e = [], [], None, []
        for level in self._levels():
            to_t, to_y, to_heard, of_blocks = level.pullback(to_heard, passed.pop())
            to_ts.append(to_t)
            to_ys.append(to_y)
            to_e += of_blocks
        to_t, of_start = self.start.pullback(_from_pyramid(to_ys, SHARE), first)
        to_u = self.input.pullback(to_t.add_(_from_pyramid(to_ts)))
        return to_u, [of_start, *reversed(to_e)]

    def _levels(self) -> list["_Level"]:
        """From the finest."""
        return [level for level in self.levels if isinstance(level, _Level)]


@dataclass(frozen=True)
class _Passed:
    """What a level keeps for φ and its reverse pass: t, ∂φ/∂t, and y after each block with what
    that keeps."""

    t: Tensor
    to_t: Tensor
    blocks: list[tuple[Tensor, Any]]


class _Level(nn.Module):
    """Blocks at one resolution."""

    def __init__(
        self, base: int, width: int, coarser: int | None, blocks: int, head_width: int | None
    ) -> None:
        super().__init__()
        self.hear = None if coarser is None else Conv(coarser, base, 1, bias=False)
        self.blocks = nn.ModuleList(
            Block(width if block else base, width, base, head_width) for block in range(blocks)
        )

    def each(self) -> list[Block]:
        """The blocks in their order."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def forward(
        self, t: Tensor, y: Tensor, heard: Tensor | None, vectors: Iterator[Tensor]
    ) -> tuple[Tensor, _Passed]:
        """Its last y, and what ``value`` and ``pullback`` need."""
        if self.hear is not None and heard is not None:
            y = doubled(SHARE * self.hear(heard)).add_(y, alpha=SHARE)
        h, to_t, passed = t, None, []
        for block in self.each():
            h, y, saved = block(h, y, next(vectors))
            read = block.readout(y)
            to_t = read if to_t is None else to_t.add_(read)
            passed.append((y, saved))
        assert to_t is not None
        return y, _Passed(t, to_t, passed)

    def value(self, passed: _Passed) -> Tensor:
        """Its terms of φ, (B,)."""
        memories = zip(self.each(), passed.blocks, strict=True)
        terms = [block.readout.memory_term(y) for block, (y, _) in memories]
        return torch.stack([*terms, _dot(passed.to_t, passed.t)]).sum(0)

    def pullback(
        self, to_y: Tensor | None, passed: _Passed
    ) -> tuple[Tensor, Tensor, Tensor | None, list[tuple[Tensor, ...]]]:
        """The cotangents of t, y, what was heard and the blocks' vectors, the last block's first,
        from that of the last y; ``None`` at the finest level."""
        to_h, to_e = None, []
        for block in reversed(self.each()):
            y, saved = passed.blocks.pop()
            read = block.readout.pullback(y, passed.t)
            to_y = read if to_y is None else read.add_(to_y)
            to_h, to_y, to_vector = block.pullback(to_h, to_y, saved)
            to_e.append(to_vector)
        assert to_h is not None and to_y is not None
        to_t = torch.add(passed.to_t, to_h, alpha=SHARE)
        if self.hear is None:
            return to_t, to_y, None, to_e
        to_doubled = SHARE * F.avg_pool2d(to_y, 2, divisor_override=1)
        return to_t, to_y, self.hear.pullback(to_doubled), to_e


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Of each sample, (B,)."""
    return (a * b).sum((1, 2, 3), dtype=wide(a))


def _pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """x and its average pools, from the finest."""
    pyramid = [x]
    while len(pyramid) < levels:
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    return pyramid


def _from_pyramid(grads: Sequence[Tensor], share: float = 1.0) -> Tensor:
    """The transpose of :func:`_pyramid`, of all but the coarsest a share."""
    *finer, total = grads
    for grad in reversed(finer):
        total = doubled(0.25 * total).add_(grad, alpha=share)
    return total
