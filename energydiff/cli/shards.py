"""Convert a folder of images: ``energydiff shards path/to/images --out path/to/shards``."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from energydiff.cli.parser import function_parser
from energydiff.data import Folder
from energydiff.data.converting import convert
from energydiff.errors import UserError


def shards(
    root: Path,
    out: Path = Path("shards"),
    image_size: int | None = None,
    channels: Literal[1, 3] = 3,
    labels: bool = False,
    background: str = "white",
    draft: bool = False,
    on_error: Literal["fail", "skip"] = "fail",
    max_skipped: float = 0.001,
    per_shard: int = 10_000,
    workers: int | None = None,
) -> None:
    """Write a folder of images as tar files of PNGs, checked, decoded and resized once for good.

    The same command goes on with what was interrupted.

    Args:
        root: A tree of image files.
        out: Folder for the shards and their manifest.
        image_size: Pixels to a side; by default that of the images, which must then be one.
        channels: 1 for grey, 3 for RGB.
        labels: Keep the class of an image, its first-level folder.
        background: What is seen through transparent pixels, a colour name or '#rrggbb'.
        draft: Decode large JPEGs at a lower resolution that is still twice image_size.
        on_error: What a broken image does, end the conversion (fail) or be left out (skip).
        max_skipped: The largest share of images that may be left out.
        per_shard: Images in a shard.
        workers: Processes that decode and encode; by default one per processor.
    """
    folder = Folder(
        root,
        image_size,
        channels,
        labels=labels,
        background=background,
        draft=draft,
        on_error=on_error,
        max_skipped=max_skipped,
    )
    processes = (os.cpu_count() or 1) if workers is None else workers
    try:
        source = convert(folder, out, per_shard, processes)
    except UserError as error:  # the options of a source have the same names here
        raise UserError(str(error).replace("data.source.", "--")) from error
    print(f"{out} holds {len(source):,} images; {'; '.join(source.remarks)}.")
    print(f"To train on them: --data.source WebDataset --data.source.root {out}")


def main(arguments: Sequence[str]) -> int:
    """0."""
    parser = function_parser(shards, "energydiff shards", usage="ROOT")
    shards(**parser.parse_args(arguments[1:]).as_dict())
    return 0
