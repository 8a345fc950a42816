"""Data sets of Hugging Face's ``datasets`` on this machine: saved, or Arrow or Parquet files.

Nothing is downloaded: an image that is only a link is refused. Parquet is converted once, into
energydiff's cache folder, or streamed from where it lies (``streamed.py``).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from energydiff.data.items import Items, ItemSpec, pick
from energydiff.data.remembered import default_cache_dir
from energydiff.data.source import Locality, Splits
from energydiff.data.streamed import StreamedRows
from energydiff.errors import UserError
from energydiff.extras import import_extra

SUFFIXES = (".parquet", ".arrow")
# Which split a file is of: train-00000-of-00002.parquet, test.parquet, validation/0.parquet.
SHARD = re.compile(r"(?P<split>\w+)-\d{5}-of-\d{5}")
SPLIT = re.compile(r"(?P<split>train|test|validation)(?![a-z])")


@dataclass(frozen=True)
class HuggingFace(ItemSpec):
    """The rows of a saved data set; ``image`` and ``label`` are the names of their columns.

    Args:
        root: a folder that ``save_to_disk`` wrote, an Arrow or Parquet file, or a folder of them.
        split: the split to train on; by default train, or the only one there is.
        held_out_split: the published split that is held out, as test; by default none is, and a
            share of the rows is.
        stream: read Parquet files where they lie, from front to back, file after file in a random
            order, with so many neighbouring images shuffled among themselves; by default files are
            converted into the cache once, and read in any order. A stream is not checked first.
    """

    root: Path | str
    split: str | None = None
    held_out_split: str | None = None
    stream: int | None = None

    def open(self) -> Splits:
        """Refuses a root without a data set, a split or a column that is not there, a column that
        holds neither images nor numbers, and what :meth:`ItemSpec.splits` refuses."""
        path = Path(self.root).expanduser()
        if self.stream is not None and self.stream < 1:
            raise UserError(f"data.source.stream is {self.stream}: at least 1 image is shuffled.")
        found = _find(path) if self.stream else _load(path)
        split = self.split or ("train" if "train" in found or len(found) > 1 else next(iter(found)))
        train = self._items(found, split, "split", path)
        # A stream is not read in full before it is trained on.
        spec = replace(self, check=self.check and not self.stream)
        if self.held_out_split is None:
            return spec.splits(train, None)
        if self.held_out_split == split:
            raise UserError(
                f"data.source.held_out_split is {split}, which is trained on: name another split,"
                " or leave it out."
            )
        return spec.splits(train, self._items(found, self.held_out_split, "held_out_split", path))

    def describe(self) -> str:
        return f"Hugging Face data at {self.root}"

    def _items(self, found: Mapping[str, Any], split: str, option: str, path: Path) -> Items:
        table = pick(found, split, f"the data set at {path}", option)
        what = f"the {split} split of {path}"
        if self.stream:
            return self._streamed(table, what, self.stream)
        feature = pick(table.features, self.image, what, "image")
        rows, classes, labels = _rows(table, self.image, feature, what), (), None
        if self.labels:
            named = pick(table.features, self.label, what, "label")
            labels = np.asarray(table.with_format(None)[self.label][:])
            classes = tuple(getattr(named, "names", ()))
        return Items(rows, what, labels, classes)

    def _streamed(self, files: Sequence[Path], what: str, window: int) -> Items:
        """Encoded images of Parquet files in their order."""
        if any(file.suffix != ".parquet" for file in files):
            raise UserError(f"data.source.stream is for Parquet files, and {what} is Arrow.")
        datasets = import_extra("datasets", "datasets")
        parquet = import_extra("pyarrow.parquet", "datasets")
        with _readable(what):
            features = datasets.Features.from_arrow_schema(parquet.read_schema(files[0]))
            if not _is_encoded(pick(features, self.image, what, "image")):
                raise UserError(
                    f"data.source.stream is for encoded images, and the column {self.image} of"
                    f" {what} holds {features[self.image]}: leave it out."
                )
            rows, labels, classes = StreamedRows(files, self.image, window), None, ()
            if self.labels:
                classes = tuple(getattr(pick(features, self.label, what, "label"), "names", ()))
                tables = [parquet.read_table(file, columns=[self.label]) for file in files]
                labels = np.concatenate([table[self.label].to_numpy() for table in tables])
        shards = np.repeat(np.arange(len(files)), rows.counts)
        return Items(rows, what, labels, classes, locality=Locality(shards, window))


def _is_encoded(feature: Any) -> bool:
    """Whether a column holds encoded images."""
    datasets = import_extra("datasets", "datasets")
    stored = isinstance(feature, dict) and {"bytes", "path"} <= set(feature)
    binary = feature == datasets.Value("binary")
    return stored or binary or isinstance(feature, datasets.Image)


@contextmanager
def _readable(what: object) -> Iterator[None]:
    """Whatever the library raises becomes a sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # damaged files can raise anything
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"{what} cannot be read as a data set ({reason}): save it anew.") from error


def _rows(table: Any, column: str, feature: Any, what: str) -> Any:
    """The column alone: encoded images as they are, arrays in their own type."""
    datasets = import_extra("datasets", "datasets")
    rows = table.select_columns([column])
    encoded = datasets.Image(decode=False)  # decoded here, by one set of rules and never by link
    if _is_encoded(feature):
        stored = rows.with_format(None)
        return stored if isinstance(feature, dict) else stored.cast_column(column, encoded)
    leaf = feature
    while hasattr(leaf, "feature"):
        leaf = leaf.feature
    try:
        dtype = np.dtype(leaf.dtype)
    except (AttributeError, TypeError):
        dtype = np.dtype(object)
    if dtype.kind not in "buif":
        raise UserError(
            f"the column {column} of {what} holds {feature}, neither images nor numbers: set"
            f" data.source.image to one of {', '.join(table.features)} that does."
        )
    return rows.with_format("numpy", dtype=dtype)


def _load(path: Path) -> dict[str, Any]:
    """The data set of every split, by name."""
    datasets = import_extra("datasets", "datasets")
    with _readable(path):
        if (path / "dataset_dict.json").is_file():
            return dict(datasets.load_from_disk(str(path)))
        if (path / "state.json").is_file():
            return {"train": datasets.load_from_disk(str(path))}
        return {split: _join(files) for split, files in _find(path).items()}


def _find(path: Path) -> dict[str, list[Path]]:
    """Arrow or Parquet files by split, both in order."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    found: dict[str, list[Path]] = {}
    for file in files:
        if file.suffix in SUFFIXES and file.is_file():
            parts = file.relative_to(path.parent if path.is_file() else path).with_suffix("").parts
            matches = [p.match(part) for part in reversed(parts) for p in (SHARD, SPLIT)]
            split = next((match["split"] for match in matches if match), "train")
            found.setdefault(split, []).append(file)
    if not found:
        raise UserError(
            f"{path} is no data set: set data.source.root to a folder that save_to_disk wrote, or"
            " to Arrow or Parquet files."
        )
    return found


def _join(files: Sequence[Path]) -> Any:
    """One data set of files of one kind."""
    datasets = import_extra("datasets", "datasets")
    if len({file.suffix for file in files}) > 1:
        raise UserError(
            f"{files[0].parent} mixes Arrow and Parquet files of one split: set data.source.root to"
            " one kind."
        )
    if files[0].suffix == ".arrow":
        parts = [datasets.Dataset.from_file(str(file)) for file in files]
        return datasets.concatenate_datasets(parts)
    cache = str(default_cache_dir() / "datasets")
    return datasets.Dataset.from_parquet([str(file) for file in files], cache_dir=cache)
