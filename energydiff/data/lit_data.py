"""Data sets that the library litdata has optimised: chunks of samples beside an index.

The library reads a sample by its number, so a run takes every sample once a pass and goes on
exactly, on any number of ranks and workers. What the library has for that, its order, its loader
and their states, is not used: it pads and drops samples, and depends on the number of workers.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from energydiff.data.items import Items, ItemSpec
from energydiff.data.source import Locality, Splits
from energydiff.data.web_dataset import WINDOW
from energydiff.errors import UserError
from energydiff.extras import import_extra

INDEX = "index.json"
# What runs no code to be read: pickle and graph do, and other kinds need libraries of their own.
KINDS = frozenset(("bytes", "image", "jpeg", "pil", "str", "text", "bool", "int", "float"))
KINDS |= {"numpy", "no_header_numpy", "tensor", "no_header_tensor"}
# What an item may be made of: of the library's other types, some import what the index names.
TYPES = frozenset(("builtins.dict", "builtins.list", "builtins.tuple", None))


class EncodedImage:
    """Instead of the library's decoding: the bytes, to be decoded by one set of rules."""

    def setup(self, metadata: Any) -> None: ...

    def deserialize(self, data: Any) -> bytes:
        return bytes(data)


class RawImage:
    """The library's way to store PIL images, of no more pixels than Pillow's limit."""

    def setup(self, metadata: Any) -> None: ...

    def deserialize(self, data: Any) -> Image.Image:
        width, height, letters = np.frombuffer(data[:12], np.uint32).tolist()
        if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"{width}x{height} pixels exceed Pillow's limit")
        mode = bytes(data[12 : 12 + letters]).decode()
        return Image.frombytes(mode, (width, height), bytes(data[12 + letters :]))


class Chunks:
    """The items of a folder of chunks, by number; each process opens it for itself."""

    def __init__(self, root: Path, count: int) -> None:
        self.root, self.count = root, count
        self._process, self._opened = 0, None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Any:
        if self._process != os.getpid():
            litdata = import_extra("litdata", "litdata")
            kinds = dict.fromkeys(("bytes", "image", "jpeg"), EncodedImage()) | {"pil": RawImage()}
            opened: Any = litdata.StreamingDataset(str(self.root), serializers=kinds)
            self._process, self._opened = os.getpid(), opened
        try:
            return self._opened[row]  # type: ignore[index]
        except Exception as error:  # a damaged chunk can raise anything
            raise OSError(str(error) or type(error).__name__) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": 0, "_opened": None}


@dataclass(frozen=True)
class LitData(ItemSpec):
    """The items that ``litdata.optimize`` wrote: mappings or tuples of images, numbers and labels.

    Args:
        root: its output folder, neither compressed nor encrypted.
    """

    root: Path | str

    def open(self) -> Splits:
        """Refuses a folder without a valid index, chunks that are missing or of another size, kinds
        of fields that run code to be read, and what :meth:`ItemSpec.splits` refuses."""
        root = Path(self.root).expanduser().absolute()
        chunks = _chunks(root)
        counts = [count for _, count in chunks]
        shards = np.repeat(np.arange(len(chunks)), counts)
        items = Chunks(root, len(shards))
        return self.splits(Items(items, str(root), locality=Locality(shards, WINDOW)), None)


def _chunks(root: Path) -> list[tuple[str, int]]:
    """File name and number of items of every chunk."""
    file = root / INDEX
    if not file.is_file():
        raise UserError(
            f"{root} has no {INDEX}: set data.source.root to a folder that litdata.optimize wrote."
        )
    try:
        content = json.loads(file.read_bytes())
        config = content["config"]
        kinds = {str(kind).partition(":")[0] for kind in config["data_format"]}
        types = set(_types(json.loads(config["data_spec"])[1]))
        packed = [
            name for name in ("compression", "encryption", "ipc_compression") if config.get(name)
        ]
        loader = config.get("item_loader", "PyTreeLoader")
        sizes = {str(c["filename"]): int(c["chunk_bytes"]) for c in content["chunks"]}
        chunks = [(str(c["filename"]), int(c["chunk_size"])) for c in content["chunks"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{file} is no index of litdata ({error}): optimise the data anew."
        ) from error
    if wrong := sorted(kinds - KINDS):
        raise UserError(
            f"{root} holds fields of the kind {', '.join(wrong)}, which may run code when they are"
            f" read, and were not: optimise the data anew as {', '.join(sorted(KINDS))}."
        )
    if packed or loader != "PyTreeLoader" or types - TYPES:
        what = ", ".join([*packed, *map(str, types - TYPES)]) or loader
        raise UserError(
            f"{root} was optimised with {what}: only plain dicts, lists and tuples of fields are"
            " read, neither compressed nor encrypted."
        )
    for name, size in sizes.items():
        if PurePosixPath(name).name != name:
            raise UserError(f"{file} names {name!r}, outside its folder: it was not read.")
        if not (root / name).is_file():
            raise UserError(f"{root / name} is missing: restore it, or optimise the data anew.")
        if (root / name).stat().st_size != size:
            raise UserError(
                f"{root / name} has not the {size:,} bytes that {INDEX} names: it is damaged;"
                " restore it, or optimise the data anew."
            )
    return chunks


def _types(spec: Any) -> Iterator[Any]:
    """Of what an item is made, at every depth."""
    yield spec["type"]
    for child in spec["children_spec"]:
        yield from _types(child)
