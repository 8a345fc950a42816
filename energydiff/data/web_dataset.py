"""Images in tar files, "shards", as the library webdataset and ``energydiff shards`` write them.

A sample is read by where it lies in its shard, so any of them can be asked for at any time: a run
takes every sample once a pass and goes on exactly, on any number of ranks and workers. The library,
which reads shards from front to back, is not needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

import numpy as np

from energydiff.data.items import Items, ItemSpec, Labels
from energydiff.data.shards import Manifest, Place, Shard, open_shards, places_of
from energydiff.data.source import Locality, Splits
from energydiff.data.split import pictures
from energydiff.errors import UserError
from energydiff.progress import with_progress

# So many neighbouring samples are shuffled among themselves: fewer are shuffled as one, and of more
# a run has some shards in use at a time.
WINDOW = 2**16
LONGEST_LABEL = 1024  # bytes


class Members:
    """One field of all samples, in their order, as bytes.

    files: the shards. shard, offset, size: where the field of each sample lies, (N,) each.
    """

    def __init__(self, files: Sequence[Path], places: Sequence[Place]) -> None:
        self.files = files
        self.shard, self.offset, self.size = np.array(places, np.int64).reshape(-1, 3).T

    def __len__(self) -> int:
        return len(self.shard)

    def __getitem__(self, row: int) -> bytes:
        """Raises OSError where the shard cannot be read."""
        size = int(self.size[row])
        with self.files[self.shard[row]].open("rb", buffering=0) as shard:
            shard.seek(self.offset[row])
            content = shard.read(size)
        if len(content) != size:
            raise OSError(f"{shard.name} has become shorter")
        return content


@dataclass(frozen=True)
class WebDataset(ItemSpec):
    """Images in tar files: a sample's key, percent-decoded, is its name and decides its side.

    Shards of ``energydiff shards`` are verified by SHA-256 when they are first opened, and their
    samples are not read for a check.

    Args:
        root: a folder of .tar files, or one of them.
        image: fields that hold an image, by file suffix; the first that a sample has is taken.
        label: the field with the class, as text.
        variants: a regular expression for what tells variants of one picture apart, as of a folder.
    """

    root: Path | str
    _: KW_ONLY
    image: str = "png;jpg;jpeg;webp;bmp;gif;tif;tiff"
    label: str = "cls"
    variants: str | None = None

    def open(self) -> Splits:
        """Refuses what :func:`open_shards` and :func:`places_of` refuse, labels that are no short
        text, and what :meth:`ItemSpec.splits` refuses."""
        root = Path(self.root).expanduser().absolute()
        shards, manifest = open_shards(root)
        places = places_of(shards, self.image.split(";"), "image")
        names = sorted(places)
        images = Members(list(shards), [places[name] for name in names])
        labels, classes = self._labels(shards, names, manifest) if self.labels else (None, ())
        items = Items(images, str(root), labels, classes, names, Locality(images.shard, WINDOW))
        # What was converted was read for that.
        splits = replace(self, check=self.check and manifest is None).splits(items, None)
        if others := sum(shard.others for shard in shards.values()):
            for part in splits:
                part.remarks = (f"files in shards that are no field of a sample: {others:,}",)
        return splits

    def pictures(self, names: Sequence[str]) -> Sequence[str]:
        return pictures(names, self.variants)

    def _labels(
        self, shards: Mapping[Path, Shard], names: Sequence[str], manifest: Manifest | None
    ) -> tuple[Labels, tuple[str, ...]]:
        """The label of every sample, and the class names where a manifest has them."""
        places = places_of(shards, [self.label], "label")
        fields, texts = Members(list(shards), [places[name] for name in names]), [""] * len(names)
        from_front_to_back = np.lexsort((fields.offset, fields.shard))
        for row in with_progress(from_front_to_back, len(names), "Reading labels"):
            if fields.size[row] > LONGEST_LABEL:
                raise UserError(
                    f"{names[row]} of {self.root} has a label of {fields.size[row]:,} bytes: set"
                    " data.source.label to a field of short text."
                )
            texts[row] = fields[row].decode(errors="replace").strip()
        if manifest is not None and all(text.isdecimal() for text in texts):
            return np.array([int(text) for text in texts]), manifest.classes
        return np.array(texts), ()
