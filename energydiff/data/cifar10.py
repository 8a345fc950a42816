"""CIFAR-10 from its published archives, binary or Python version, packed or unpacked.

A record of the binary version is a label byte and 3,072 bytes of red, green and blue planes.
A batch of the Python version is a pickled dictionary. Unpickling can run any code, so it is read
by an unpickler that knows stand-ins for the few names a uint8 array is pickled with, and nothing
else: no code of numpy, or of anyone, is reachable from the file.
"""

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from energydiff.data.normalization import Normalization
from energydiff.data.source import ArraySource, Splits, index_names
from energydiff.data.spec import DataSpec
from energydiff.errors import UserError

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SHAPE = (3, 32, 32)
LARGEST = 2**26  # bytes of a batch, which has some 31 million
PIXELS = 3072
TRAIN = tuple(f"data_batch_{k}" for k in range(1, 6))
TEST = "test_batch"

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]  # (N, 3072) pixels and (N,) labels


@dataclass(frozen=True)
class Cifar10(DataSpec):
    """CIFAR-10: uint8 samples (3, 32, 32) of 0..255; the published test batch is held out.

    Args:
        root: the published archive, its unpacked folder, or the folder that holds either.
    """

    labelled: ClassVar[bool] = True

    root: Path | str

    def open(self) -> Splits:
        """Refuses a place without it, and a batch that is missing, damaged or unsafe."""
        place, parse, suffix = _find(Path(self.root).expanduser())
        files = _contents(place, {f"{name}{suffix}" for name in (*TRAIN, TEST)})

        batches = [_batch(place, f"{name}{suffix}", files, parse) for name in (*TRAIN, TEST)]
        labels = [batch_labels for _, batch_labels in batches]
        count = sum(map(len, labels[:-1]))
        source = ArraySource(
            np.concatenate([pixels for pixels, _ in batches]).reshape(-1, *SHAPE),
            Normalization(0, 255),
            [*index_names(count, "train/"), *index_names(len(labels[-1]), "test/")],
            classes=CLASSES if self.labels else (),
            labels=np.concatenate(labels) if self.labels else None,
        )
        rows = np.arange(len(source))
        return Splits(source.select(rows[:count]), source.select(rows[count:]))


def _find(root: Path) -> tuple[Path, Callable[[bytes], Batch], str]:
    """The folder or archive to read, the parser of its batches, and their file suffix."""
    for version, parse, suffix in (("bin", _parse_binary, ".bin"), ("py", _parse_pickle, "")):
        folder = f"cifar-10-batches-{version}"
        archive = "cifar-10-binary.tar.gz" if version == "bin" else "cifar-10-python.tar.gz"
        for place in (root, root / folder, root / archive):
            if place.name in (folder, archive) and place.exists():
                return place, parse, suffix
    raise UserError(
        f"No CIFAR-10 in {root}: fetch cifar-10-binary.tar.gz or cifar-10-python.tar.gz from "
        "https://www.cs.toronto.edu/~kriz/cifar.html and put it there, packed or unpacked."
    )


def _contents(place: Path, names: set[str]) -> dict[str, bytes]:
    """The bytes of those named files which the folder or archive holds."""
    try:
        if place.is_dir():
            there = [place / name for name in names if (place / name).exists()]
            _require_size(place, {file.name: file.stat().st_size for file in there})
            return {file.name: file.read_bytes() for file in there}
        files = {}
        with tarfile.open(place, "r:*") as archive:
            for member in archive:
                name = Path(member.name).name
                # Links, which may name anything, are none of a published archive's.
                if name in names and member.isreg():
                    _require_size(place, {name: member.size})
                    content = archive.extractfile(member)
                    assert content is not None
                    files[name] = content.read()
        return files
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise UserError(f"{place} cannot be read ({error}): fetch the archive again.") from error


def _require_size(place: Path, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        if size > LARGEST:
            raise UserError(
                f"{place}: {name} has {size:,} bytes, more than any batch: fetch it again."
            )


def _batch(
    place: Path, name: str, files: dict[str, bytes], parse: Callable[[bytes], Batch]
) -> Batch:
    if name not in files:
        raise UserError(f"{place} lacks {name}: fetch the archive again.")
    try:
        pixels, labels = parse(files[name])
    except UserError as error:
        raise UserError(f"{place}: {name} {error}") from error
    if len(labels) != len(pixels) or not len(labels) or not np.isin(labels, range(10)).all():
        raise UserError(
            f"{place}: {name} does not hold one label from 0 to 9 for each of its "
            f"{len(pixels)} images; fetch the archive again."
        )
    return pixels, labels


def _parse_binary(content: bytes) -> Batch:
    if len(content) % (1 + PIXELS):
        raise UserError(f"is not a whole number of {1 + PIXELS}-byte records; fetch it again.")
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + PIXELS)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _parse_pickle(content: bytes) -> Batch:
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        pixels = batch[b"data" if b"data" in batch else "data"].values
        labels = batch[b"labels" if b"labels" in batch else "labels"]
        return pixels.reshape(-1, PIXELS), np.array(labels, np.int64)
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"is not a CIFAR-10 batch ({error}); fetch it again.") from error


class _PickledArray:
    """Stands for numpy.ndarray: made empty, then given the state of a uint8 array."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], Any, bool, bytes]) -> None:
        _, shape, dtype, fortran_order, content = state
        if not isinstance(dtype, _PickledUint8):
            raise UserError("holds an array that is not uint8; fetch it again.")
        values = np.frombuffer(content, np.uint8)
        self.values = values.reshape(shape[::-1]).T if fortran_order else values.reshape(shape)


class _PickledUint8:
    """Stands for numpy.dtype of uint8; the state (byte order, fields) says nothing more."""

    def __setstate__(self, state: object) -> None:
        pass


def _dtype(code: str | bytes, *_: object) -> _PickledUint8:
    if code not in ("u1", b"u1"):
        raise UserError("holds an array that is not uint8; fetch it again.")
    return _PickledUint8()


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),  # bytes, to Python 2 protocols
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise UserError(
                f"asks for {module}.{name}, which no CIFAR-10 batch needs, and was not run; "
                "fetch it again from https://www.cs.toronto.edu/~kriz/cifar.html."
            ) from None
