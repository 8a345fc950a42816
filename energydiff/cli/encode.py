"""Latents of images: ``energydiff encode --source Folder --encoder vae.Encoder``."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from energydiff.cli.parser import function_parser
from energydiff.data import DataSpec, Splits, understood
from energydiff.data.decoder import apply_frozen
from energydiff.errors import UserError
from energydiff.evaluation.images import image_batches
from energydiff.files import whole
from energydiff.report.arrays import Array, write_array


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
    with whole(out) as partial, partial.open("wb") as stream:
        write_array(stream, count, _latents(splits, encoder.eval(), batch_size))
    if splits.train.classes:
        names = np.array(splits.train.classes)
        with whole(out.with_suffix(".labels.npy")) as partial, partial.open("wb") as stream:
            np.save(stream, names[np.concatenate([part.labels for part in splits])])
    print(f"{count:,} latents written to {out}.")


def _latents(splits: Splits, encoder: nn.Module, batch_size: int) -> Iterator[Array]:
    """(B, \\*shape) float32 of every batch."""
    for part, told in zip(splits, ("training", "held-out"), strict=True):
        if len(part):
            for images, _ in image_batches(part, f"Encoding {told} images", batch_size):
                yield _encoded(encoder, images)


def _encoded(encoder: nn.Module, images: Tensor) -> Array:
    name = type(encoder).__name__
    try:
        latents = apply_frozen(encoder, images / 127.5 - 1).float().numpy()
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"the encoder {name} makes no latents of images {tuple(images.shape[1:])}: {error}."
        ) from error
    if not np.isfinite(latents).all():
        raise UserError(f"the encoder {name} makes latents that are not finite: check its weights.")
    return latents


def main(arguments: Sequence[str]) -> int:
    """0."""
    prog = "energydiff encode"
    parser = function_parser(encode, prog, {"source", "encoder"})
    parser.add_argument("--source", type=DataSpec, required=True, help="The images.")
    parser.add_argument("--encoder", type=nn.Module, required=True, help="A module, by class path.")
    encode(**parser.instantiate(parser.parse_args(arguments[1:])).as_dict())
    return 0
