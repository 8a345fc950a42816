"""Tar files of samples, "shards", by WebDataset's convention: what they hold, and if all is there.

A member ``cat/7.png`` is the field ``png`` of the sample ``cat/7``: what stands before the first
dot of the last part is the sample's key, and percent-decoded its name. Only headers are read here.
They are remembered by the size and the time of a shard, and so is its SHA-256, where a manifest
beside the shards says what that is.

The manifest ``shards.json`` (``converting.py`` writes it) has the fields

    complete    whether the conversion came to its end
    options     what the samples were made by
    classes     names of the classes, in the order of the numbers in the fields ``cls``
    shards      of each file: its ``file`` name, number of ``samples``, and ``sha256``
"""

import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from energydiff.data.remembered import Remembered
from energydiff.errors import UserError
from energydiff.files import digest_file
from energydiff.progress import with_progress

MANIFEST = "shards.json"
READER = "1"
LARGEST = 2**30  # bytes of a member, which is read in one piece
PARTS = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)  # the key and the field of a name

Member = tuple[str, str, int, int]  # name, field, and where its bytes are: offset, size


class Shard(NamedTuple):
    """A tar file, known by its size and time.

    sha256: empty where no manifest asks for it. members: in the order of the file. others: how many
    files it has that are no field of a sample.
    """

    bytes: int
    mtime_ns: int
    sha256: str
    members: list[Member]
    others: int


class Place(NamedTuple):
    """Where a field of a sample is: in which shard, and where in that."""

    shard: int
    offset: int
    size: int


class Manifest(NamedTuple):
    """See above; ``sha256`` by file name."""

    complete: bool
    options: dict[str, Any]
    classes: tuple[str, ...]
    sha256: dict[str, str]


def read_manifest(root: Path) -> Manifest | None:
    """That of a folder of shards, where it has one; ``UserError`` where it cannot be read."""
    file = root / MANIFEST
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_bytes())
        shards = {str(shard["file"]): shard for shard in content["shards"]}
        inside = all(PurePosixPath(name).name == name for name in shards)
        if not inside or len(shards) != len(content["shards"]):
            raise ValueError("it names files outside the folder, or one twice")
        return Manifest(
            content["complete"] is True,
            dict(content["options"]),
            tuple(map(str, content["classes"])),
            {name: str(shard["sha256"]) for name, shard in shards.items()},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is no manifest of shards ({error}): convert the images anew, or remove it to"
            " read the shards unverified."
        ) from error


def open_shards(root: Path) -> tuple[dict[Path, Shard], Manifest | None]:
    """The shards of a folder in order, or one shard, and the manifest.

    Raises:
        UserError: no shards, an unfinished conversion, a shard that is missing, differs from the
            manifest, is cut short or no tar file, and members that are links or lead out of it.
    """
    manifest = read_manifest(root)
    names = _names(root, manifest)
    folder = root if root.is_dir() else root.parent
    known = Remembered.of("shards", root, READER, None)
    before = known.recall(Shard)
    found: dict[str, Shard] = {}

    def check(name: str) -> tuple[str, Shard]:
        wanted = manifest.sha256[name] if manifest else ""
        return name, _check(folder / name, wanted, before.get(name))

    try:
        # Threads suffice: what takes long is the hash, which lets go of the interpreter lock.
        with ThreadPool(os.cpu_count()) as pool:
            outcomes = pool.imap(check, names)
            found.update(with_progress(outcomes, len(names), "Checking shards"))
    finally:  # an interrupted check goes on where it stopped
        if found != before:
            known.remember({**before, **found} if len(found) < len(names) else found)
    return {folder / name: found[name] for name in names}, manifest


def places_of(shards: Mapping[Path, Shard], fields: Sequence[str], option: str) -> dict[str, Place]:
    """By name, where every sample has the first of these fields that it has.

    Raises UserError, naming the option that chooses the fields,
    for a sample without any of them, and for two samples of one name.
    """
    found: dict[str, tuple[int, Place]] = {}
    ranks, none = {field: rank for rank, field in enumerate(fields)}, len(fields)
    for number, (file, shard) in enumerate(shards.items()):
        for name, field, offset, size in shard.members:
            rank = ranks.get(field, none)
            known, place = found.get(name, (none + 1, Place(number, offset, size)))
            if place.shard != number or known == rank < none:
                raise UserError(
                    f"{file} holds a second sample {name} (or field {field} of it): keep one."
                )
            if rank < known:
                found[name] = rank, Place(number, offset, size)
    files = list(shards)
    for name, (rank, place) in found.items():
        if rank == none:
            raise UserError(
                f"{name} of {files[place.shard]} has no {', '.join(fields)}: set"
                f" data.source.{option} to a field that every sample has."
            )
    return {name: place for name, (_, place) in found.items()}


def _names(root: Path, manifest: Manifest | None) -> list[str]:
    if root.is_file():
        return [root.name]
    names = sorted(file.name for file in root.glob("*.tar"))
    if manifest is None:
        if not names:
            raise UserError(
                f"{root} {'holds no .tar files' if root.is_dir() else 'does not exist'}: set"
                " data.source.root to a folder of shards (energydiff shards makes one)."
            )
        return names
    if not manifest.complete:
        raise UserError(
            f"{root} holds a conversion that did not come to its end: run the same energydiff"
            " shards again, which goes on."
        )
    for name in sorted(manifest.sha256.keys() ^ set(names)):
        problem = "is missing" if name in manifest.sha256 else f"is not in {MANIFEST}"
        raise UserError(f"{root / name} {problem}: restore the folder as it was converted.")
    return names


def _check(path: Path, sha256: str, before: Shard | None) -> Shard:
    status = path.stat()
    stamp = status.st_size, status.st_mtime_ns
    if before is not None and before[:2] == stamp and before.sha256 == sha256:
        return before
    if sha256 and digest_file(path) != sha256:
        raise UserError(
            f"{path} is not the file that {MANIFEST} names (its SHA-256 differs): it is damaged or"
            " was changed; restore it or convert the images anew."
        )
    members, others = [], 0
    for name, offset, size in _read_headers(path, status.st_size):
        found = PARTS.fullmatch(name)
        if found is None:
            others += 1
        else:
            name = _name(found[1].removeprefix("./"))
            members.append((name, found[2].lower(), offset, size))
    return Shard(*stamp, sha256, members, others)


@lru_cache(maxsize=1)  # the members of a sample follow one another
def _name(key: str) -> str:
    return unquote(key, errors="surrogateescape")


def _read_headers(path: Path, end: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of every file in a tar file; refuses what is not a plain one."""
    try:
        with tarfile.open(path, "r:") as archive:
            last = 0
            for member in archive:
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise UserError(
                        f"{path} holds {member.name!r}, which is a link or no plain file: nothing"
                        " but files belongs into a shard, so it was not read."
                    )
                place = PurePosixPath(member.name)
                if place.is_absolute() or ".." in place.parts:
                    raise UserError(
                        f"{path} holds {member.name!r}, whose name leads out of it: such a shard"
                        " was made to do harm, so it was not read."
                    )
                if member.size > LARGEST:
                    raise UserError(
                        f"{path} holds {member.name!r} of {member.size:,} bytes, more than any"
                        " sample: it was not read."
                    )
                last = member.offset_data + member.size
                yield member.name, member.offset_data, member.size
        if last + tarfile.BLOCKSIZE > end:  # an empty block ends an archive
            raise tarfile.ReadError("it is cut short")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(
            f"{path} cannot be read as a tar file ({error}): restore it; if it is compressed,"
            " unpack it to a plain .tar."
        ) from error
