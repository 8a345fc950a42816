"""Data sets of Hugging Face's ``datasets`` on this machine: saved, or Arrow or Parquet files.

Nothing is downloaded: an image that is only a link is refused. Parquet is converted once, into
energydiff's cache folder.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from energydiff.data.items import Items, ItemSpec, pick
from energydiff.data.remembered import default_cache_dir
from energydiff.data.source import Splits
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
    """

    root: Path | str
    split: str | None = None
    held_out_split: str | None = None

    def open(self) -> Splits:
        """Refuses a root without a data set, a split or a column that is not there, a column that
        holds neither images nor numbers, and what :meth:`ItemSpec.splits` refuses."""
        path = Path(self.root).expanduser()
        found = _load(path)
        split = self.split or ("train" if "train" in found or len(found) > 1 else next(iter(found)))
        train = self._items(found, split, "split", path)
        if self.held_out_split is None:
            return self.splits(train, None)
        if self.held_out_split == split:
            raise UserError(
                f"data.source.held_out_split is {split}, which is trained on: name another split,"
                " or leave it out."
            )
        return self.splits(train, self._items(found, self.held_out_split, "held_out_split", path))

    def describe(self) -> str:
        return f"Hugging Face data at {self.root}"

    def _items(self, found: Mapping[str, Any], split: str, option: str, path: Path) -> Items:
        table = pick(found, split, f"the data set at {path}", option)
        what = f"the {split} split of {path}"
        feature = pick(table.features, self.image, what, "image")
        rows, classes, labels = _rows(table, self.image, feature, what), (), None
        if self.labels:
            named = pick(table.features, self.label, what, "label")
            labels = np.asarray(table.with_format(None)[self.label][:])
            classes = tuple(getattr(named, "names", ()))
        return Items(rows, what, labels, classes)


def _rows(table: Any, column: str, feature: Any, what: str) -> Any:
    """The column alone: encoded images as they are, arrays in their own type."""
    datasets = import_extra("datasets", "datasets")
    rows = table.select_columns([column])
    encoded = datasets.Image(decode=False)  # decoded here, by one set of rules and never by link
    if isinstance(feature, datasets.Image) or feature == datasets.Value("binary"):
        return rows.with_format(None).cast_column(column, encoded)
    if isinstance(feature, dict) and {"bytes", "path"} <= set(feature):
        return rows.with_format(None)
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
    try:
        if (path / "dataset_dict.json").is_file():
            return dict(datasets.load_from_disk(str(path)))
        if (path / "state.json").is_file():
            return {"train": datasets.load_from_disk(str(path))}
        return {split: _join(files) for split, files in _find(path).items()}
    except UserError:
        raise
    except Exception as error:  # damaged files can raise anything
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"{path} cannot be read as a data set ({reason}): save it anew.") from error


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
