"""Latents of images: ``energydiff encode --source Folder --encoder vae.Encoder``."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor, nn

from energydiff.cli.parser import function_parser
from energydiff.data import DataSpec, Splits, understood
from energydiff.data.decoder import apply_frozen
from energydiff.errors import UserError
from energydiff.evaluation.images import image_batches
from energydiff.files import whole


def encode(
    source: DataSpec, encoder: nn.Module, out: Path = Path("latents.npy"), batch_size: int = 64
) -> None:
    """Write what an encoder makes of all images of a data set, as an array to train on.

    Args:
        source: The images, as of data.source in docs/data.md.
        encoder: Makes latents (B, C, h, w) of images (B, 1 or 3, H, W), black -1 and white 1.
        out: The .npy of all latents, training images first, then those held out; their classes go
            beside it, as latents.labels.npy.
        batch_size: Images read at a time.
    """
    if out.suffix != ".npy":
        raise UserError(f"--out is {out}; latents are written to an .npy.")
    splits = source.open()
    print(understood(splits))
    count = sum(map(len, splits))
    shape = _write(_latents(splits, encoder.eval(), batch_size), count, out)
    if splits.train.classes:
        names = np.array(splits.train.classes)
        with whole(out.with_suffix(".labels.npy")) as partial, partial.open("wb") as stream:
            np.save(stream, names[np.concatenate([part.labels for part in splits])])
    print(f"Written to {out}: {count:,} latents {shape}.")


def _latents(splits: Splits, encoder: nn.Module, batch_size: int) -> Iterator[Tensor]:
    """(B, \\*shape) float32 of every batch."""
    for part, told in zip(splits, ("training", "held-out"), strict=True):
        if len(part):
            for images, _ in image_batches(part, f"Encoding {told} images", batch_size):
                yield apply_frozen(encoder, images / 127.5 - 1).float()


def _write(batches: Iterator[Tensor], count: int, out: Path) -> tuple[int, ...]:
    """All of them into one file, of which a part is in memory; the shape of one."""
    first = next(batches)
    shape, start = tuple(first.shape[1:]), 0
    with whole(out) as partial:
        array = open_memmap(partial, "w+", np.float32, (count, *shape))
        for latents in chain([first], batches):
            finite = torch.isfinite(latents).flatten(1).all(1)
            if not finite.all():
                number = start + int(finite.int().argmin())
                raise UserError(f"the encoder makes values that are not finite of image {number}.")
            array[start : start + len(latents)] = latents
            start += len(latents)
        array.flush()
    return shape


def main(arguments: Sequence[str]) -> int:
    """0."""
    prog = "energydiff encode"
    parser = function_parser(encode, prog, {"source", "encoder"})
    parser.add_argument("--source", type=DataSpec, required=True, help="The images.")
    parser.add_argument("--encoder", type=nn.Module, required=True, help="A module, by class path.")
    encode(**parser.instantiate(parser.parse_args(arguments[1:])).as_dict())
    return 0
