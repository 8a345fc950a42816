"""A folder of images as shards: plain tar files of PNGs, decoded and resized once for good.

The pixels are those that :class:`Folder` hands out, bit for bit, and names stay what they were, so
a run on the shards is one on the folder. Images lie in an order that their names decide, as if
shuffled: every shard holds some of everything. A shard is written whole or not at all, and then
counted in the manifest; what is interrupted goes on after the last of these, to the same bytes.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from energydiff.data.folder import Folder, FolderSource
from energydiff.data.shards import MANIFEST, read_manifest
from energydiff.errors import UserError
from energydiff.files import digest_file, sweep, whole, write_json
from energydiff.progress import progress, with_progress

BATCH = 16
# What is written depends on these options of a folder.
OPTIONS = ("image_size", "channels", "background", "draft", "labels")


class EncodedImages(Dataset[dict[str, bytes]]):
    """The members of a shard that make up each sample, by name."""

    def __init__(self, source: FolderSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, bytes]:
        raw, label = self.source[i]
        pixels = raw.permute(1, 2, 0).numpy()
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        image.save(encoded := io.BytesIO(), "PNG")
        # A key ends at its first dot.
        key = quote(self.source.names[i], errors="surrogateescape").replace(".", "%2E")
        members = {f"{key}.png": encoded.getvalue()}
        return members | {f"{key}.cls": str(label).encode()} if self.source.classes else members


def convert(folder: Folder, out: Path, per_shard: int = 10_000, workers: int = 0) -> FolderSource:
    """Writes the images of a folder as shards, and returns these images.

    Args:
        folder: the images, and how they are read; its split has no bearing.
        out: the folder of the shards.
        per_shard: images in every shard but the last.
        workers: processes that decode and encode; 0 for this one alone.

    Raises:
        UserError: what :meth:`Folder.whole` refuses, an image that breaks meanwhile, shards of
            other images or options in ``out``, and no room there.
    """
    if per_shard < 1:
        raise UserError(f"per_shard is {per_shard}: a shard holds at least 1 image.")
    source = folder.whole().shuffled(0)
    source.spare = 0  # whatever took the place of a broken image would be there twice
    options = {name: value for name, value in asdict(folder).items() if name in OPTIONS}
    options |= {"per_shard": per_shard, "images": _digest(folder, source)}
    starts = range(0, len(source), per_shard)
    counts = {f"{i:06d}.tar": min(per_shard, len(source) - s) for i, s in enumerate(starts)}
    kept = _kept(out, options)

    def record(complete: bool) -> None:
        written = [(file, count) for file, count in counts.items() if file in kept]
        shards = [{"file": f, "samples": count, "sha256": kept[f]} for f, count in written]
        content = {"complete": complete, "options": options, "classes": source.classes}
        write_json(out / MANIFEST, content | {"shards": shards})

    record(complete=not counts.keys() - kept.keys())
    missing = [file for file in counts if file not in kept]
    shard_of = np.arange(len(source)) // per_shard
    todo = np.isin(shard_of, [i for i, file in enumerate(counts) if file in missing])
    images = _encode(source.select(np.flatnonzero(todo)), workers)
    done = sum(counts[file] for file in kept)
    with progress("Writing shards", len(source)) as tell:
        for file in missing:
            with whole(out / file) as partial, tarfile.open(partial, "w") as shard:
                for _ in range(counts[file]):
                    _add(shard, next(images))
                    tell(done := done + 1)
            kept[file] = digest_file(out / file)
            record(complete=file == missing[-1])
    return source


def _digest(folder: Folder, source: FolderSource) -> str:
    """SHA-256 of the images' names and sizes in bytes, by which a folder is known again."""
    found, root = hashlib.sha256(), Path(folder.root).expanduser()
    for name in source.names:
        found.update(f"{name}\0{(root / name).stat().st_size}\0".encode(errors="surrogateescape"))
    return found.hexdigest()


def _kept(out: Path, options: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the shards that an earlier run wrote, and that are as it left them."""
    manifest = read_manifest(out)
    if manifest is None:
        if any(out.glob("*.tar")):
            raise UserError(f"{out} holds other .tar files: choose another --out.")
        return {}
    differing = [name for name, value in options.items() if manifest.options.get(name) != value]
    if differing:
        raise UserError(
            f"{out} holds shards made by other {', '.join(differing)}: choose another --out, or the"
            " same images and options to go on."
        )
    sweep(out)
    shards = manifest.sha256.items()
    return {
        file: sha256
        for file, sha256 in with_progress(shards, len(shards), "Checking shards")
        if (out / file).is_file() and digest_file(out / file) == sha256
    }


def _encode(source: FolderSource, workers: int) -> Iterator[dict[str, bytes]]:
    """In order, few ahead of what is taken, whatever the number of processes."""
    loader = DataLoader(
        EncodedImages(source), batch_size=BATCH, num_workers=workers, collate_fn=list
    )
    for batch in loader:
        yield from batch


def _add(shard: tarfile.TarFile, members: Mapping[str, bytes]) -> None:
    """The same bytes whenever and by whomever they are written."""
    for name, content in members.items():
        member = tarfile.TarInfo(name)
        member.size = len(content)
        shard.addfile(member, io.BytesIO(content))
