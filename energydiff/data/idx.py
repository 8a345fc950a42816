"""MNIST and Fashion-MNIST: the four published IDX files, gzipped or not.

An IDX file is a big-endian magic number (0, 0, 8 for bytes, number of axes), one 32-bit length
per axis, and the bytes. The published t10k files are the held-out split.
"""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from energydiff.data.normalization import Normalization
from energydiff.data.source import ArraySource, Rows, Splits, index_classes, index_names
from energydiff.data.spec import DataSpec
from energydiff.errors import UserError

PARTS = ("train", "t10k")
LARGEST = 2**30  # bytes of a file, unpacked; the largest published, of EMNIST, has half of it


@dataclass(frozen=True)
class Idx(DataSpec):
    """MNIST or Fashion-MNIST: uint8 samples (1, H, W) of 0..255, published t10k files held out.

    Args:
        root: the folder of the IDX files.
    """

    labelled: ClassVar[bool] = True

    root: Path | str

    def open(self) -> Splits:
        """Label files are read only when labels are asked for. Refuses, naming it, a file that is
        missing, damaged, or does not match the others."""
        folder = Path(self.root).expanduser()
        if not folder.is_dir():
            raise UserError(
                f"{folder} is not a folder: set data.source.root to the folder of the IDX files."
            )
        images = [_read(_find(folder, part, "images-idx3"), axes=3) for part in PARTS]
        train, test = images
        if train.shape[1:] != test.shape[1:]:
            raise UserError(
                f"{folder}: train images are {train.shape[1:]} but t10k images are"
                f" {test.shape[1:]}."
            )
        counts = [len(train), len(test)]
        classes, indices = _classes(folder, counts) if self.labels else ((), None)
        source = ArraySource(
            np.concatenate(images)[:, None],
            Normalization(0, 255),
            [*index_names(len(train), "train/"), *index_names(len(test), "t10k/")],
            classes,
            indices,
        )
        rows = np.arange(len(source))
        return Splits(source.select(rows[: len(train)]), source.select(rows[len(train) :]))


def _find(folder: Path, part: str, kind: str) -> Path:
    """The file of this part and kind under any of the names it is published with."""
    name = f"{part}-{kind}-ubyte"
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    raise UserError(
        f"{folder / name} (or .gz) is missing: put the four files published at "
        "yann.lecun.com/exdb/mnist or github.com/zalandoresearch/fashion-mnist there, or install "
        "Debian's dataset-fashion-mnist and set data.source.root to "
        "/usr/share/datasets/fashion-mnist."
    )


def _read(path: Path, axes: int) -> NDArray[np.uint8]:
    """The array of an IDX file of bytes with this many axes, at least one long each."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as opened:
            content = opened.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): fetch the file again.") from error
    if len(content) > LARGEST:
        raise UserError(f"{path} holds more than {LARGEST:,} bytes: fetch the file again.")
    header = 4 + 4 * axes
    if len(content) < header or content[:4] != bytes((0, 0, 8, axes)):
        raise UserError(f"{path} is not an IDX file of bytes with {axes} axes: fetch it again.")
    shape = struct.unpack(f">{axes}I", content[4:header])
    if math.prod(shape) != len(content) - header or 0 in shape:
        raise UserError(
            f"{path} announces {' x '.join(map(str, shape))} bytes but holds "
            f"{len(content) - header}: fetch the file again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _classes(folder: Path, counts: list[int]) -> tuple[tuple[str, ...], Rows]:
    """Class names, and the class indices of all parts, which have this many images."""
    labels = []
    for part, count in zip(PARTS, counts, strict=True):
        path = _find(folder, part, "labels-idx1")
        labels.append(_read(path, axes=1))
        if len(labels[-1]) != count:
            raise UserError(f"{path} holds {len(labels[-1])} labels for {count} {part} images.")
    return index_classes(np.concatenate(labels))
