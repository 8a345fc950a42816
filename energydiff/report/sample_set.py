"""A set of samples on disk while it is drawn: batch by batch, so that it can be gone on with.

Whoever draws a batch writes its images and then a part, ``parts/000128.npz`` of the samples from
number 128 on, which holds them and the record of their making. What is not in a part whole is drawn
again. A finished set has no parts: :mod:`energydiff.report.sampling` makes its files of them.
"""

import json
import shutil
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from energydiff.data import write_images
from energydiff.errors import UserError
from energydiff.files import whole, write_json
from energydiff.report.arrays import read_rows
from energydiff.report.trace import RECORD, SEAL, load_trace
from energydiff.sampling import SampleResult, Trace
from energydiff.saving import SavedModel, digest_of

ABOUT = "sampling.json"
FILES = ("samples.npz", "grid.png", *RECORD)
PARTS = "parts"
ROWS = 256  # samples in a part that is made of a finished set
UNREADABLE = (OSError, KeyError, ValueError, TypeError, EOFError, BadZipFile, UserError)


@dataclass(frozen=True)
class Record:
    """What is known of a part: the trace, if one is kept, and counts of samples and evaluations."""

    trace: Trace | None
    count: int
    nfe: int
    energy_evaluations: int


@dataclass(frozen=True)
class SampleSet:
    """Samples 0 to ``count - 1`` of one model by one sampler, in a folder.

    Attributes:
        out: the folder; every process that draws sees the same.
        model: what they are samples of, without guidance.
        settings: how they are drawn, plain data; ``model`` in it is a path and may change.
        count: how many there will be.
        record: whether the record of their making is kept.
    """

    out: Path
    model: SavedModel
    settings: dict[str, Any]
    count: int
    record: bool

    @cached_property
    def made_by(self) -> dict[str, Any]:
        """What samples must share to be of one set, as a file gives it back."""
        how = {name: value for name, value in self.settings.items() if name != "model"}
        made_by = {"weights": digest_of(self.model), **how, "trace": self.record}
        return dict(json.loads(json.dumps(made_by)))

    @cached_property
    def are_images(self) -> bool:
        """Whether they can be shown; ``UserError`` where their decoder is not at hand."""
        return self.model.normalization.picture_shape(self.model.denoiser.shape) is not None

    def require_room(self, overwrite: bool) -> None:
        """``UserError`` if ``out`` holds files that no sampling left, or, unless they may be
        overwritten, samples that are not of this set, or images could not be made. Changes
        nothing."""
        _ = self.are_images
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"{self.out} is a file; --out takes a folder.")
        foreign = next(self._files(), None)
        if foreign and not self._was_sampled():
            raise UserError(
                f"{self.out} holds {foreign.relative_to(self.out)}, and not as a sampling leaves"
                " it: choose another --out or move it away."
            )
        if (why := self._other()) and not overwrite:
            raise UserError(
                f"{self.out} holds {why}: choose another --out, or add --overwrite to replace what"
                " is there."
            )

    def begin(self) -> Container[int]:
        """Makes the folder ready and says which numbers it holds whole.

        For one process, after :meth:`require_room`: what is not of this set is removed.
        """
        if self._other():
            self._clear()
        about = _read_about(self.out)
        if self.finished is not None:
            return range(self.count)
        if (have := about.get("finished")) is not None:
            self._take_apart(have)
        write_json(self.out / ABOUT, {"made_by": self.made_by, "finished": None})
        for partial in (*self.out.glob("*.partial"), *self.out.glob(f"{PARTS}/*.partial")):
            partial.unlink()  # of a process that was killed
        known: set[int] = set()
        for file in _numbered(self.out / PARTS):
            try:
                start, count = int(file.stem), len(_read_samples(file))
                if _read_record(file).count == count:
                    known.update(range(start, start + count))
            except UNREADABLE:
                file.unlink()  # and drawn again
        return known

    @property
    def finished(self) -> dict[str, Any] | None:
        """What is known of the set once it is finished, ``None`` while anything of it is missing:
        ``samples``, ``nfe``, ``energy_evaluations`` and ``outside_range``."""
        found = _read_about(self.out).get("finished")
        made = ("samples.npz", *(RECORD if self.record else ()))
        if not found or not all((self.out / name).is_file() for name in made) or self._other():
            return None
        images = len(_numbered(self.out / "images")) if self.are_images else self.count
        return dict(found) if found["samples"] == images == self.count else None

    def take(self, numbers: Sequence[int], drawn: SampleResult) -> None:
        """Writes consecutive samples: their images, then the part that says they are there."""
        if self.are_images:
            finite = drawn.samples.isfinite().flatten(1).all(1)
            for row in finite.nonzero()[:, 0].tolist():
                images, low_high = self.out / "images", self.model.normalization
                write_images(drawn.samples[row : row + 1], images, low_high, numbers[row])
        _write_part(self.out / PARTS / f"{numbers[0]:06d}.npz", drawn)

    def records(self) -> Iterator[Record]:
        """What is known of each part, in the order of the numbers, without its samples.

        Raises:
            UserError: some are missing.
        """
        have = 0
        for file in _numbered(self.out / PARTS):
            if int(file.stem) != have:
                break
            record = _read_record(file)
            have += record.count
            yield record
        if have != self.count:
            raise UserError(
                f"{self.out / PARTS} lacks samples from number {have} on, of {self.count}: run the"
                " same command again; processes that share the work must all see this folder."
            )

    def samples(self) -> Iterator[Tensor]:
        """Of each part, (b, \\*shape), in the order of the numbers."""
        return map(_read_samples, _numbered(self.out / PARTS))

    def finish(self, summary: dict[str, Any]) -> None:
        """Notes that all files of the set are there, and removes the parts."""
        finished = {"samples": self.count, **summary}
        write_json(self.out / ABOUT, {"made_by": self.made_by, "finished": finished})
        shutil.rmtree(self.out / PARTS)

    def _files(self) -> Iterator[Path]:
        """What a sampling would write, of what is there."""
        yield from (self.out / name for name in FILES if (self.out / name).exists())
        yield from _numbered(self.out / "images")
        yield from _numbered(self.out / PARTS)

    def _was_sampled(self) -> bool:
        """Whether a sampling, of this version or one before it, wrote into the folder."""
        if "made_by" in _read_about(self.out):
            return True
        try:
            if (self.out / "samples.npz").exists():
                with np.load(self.out / "samples.npz", allow_pickle=False) as archive:
                    return {"samples", "raw"} <= set(archive.files)
            return "digest" in json.loads((self.out / "trace.json").read_text())
        except UNREADABLE:
            return False

    def _other(self) -> str | None:
        """What is there that is not of this set, in words."""
        if next(self._files(), None) is None:
            return None
        theirs = _read_about(self.out).get("made_by")
        if theirs is None:
            return f"samples without the record of how they were drawn ({ABOUT})"
        ours = self.made_by
        if theirs != ours:
            differ = [name for name in ours if theirs.get(name, ...) != ours[name]]
            told = ", ".join(sorted({*differ, *(theirs.keys() - ours.keys())}))
            return f"samples of another model or other settings (they differ in {told})"
        folders = ("images", PARTS)
        beyond = sum(int(f.stem) >= self.count for n in folders for f in _numbered(self.out / n))
        finished = _read_about(self.out).get("finished") or {}
        if beyond or finished.get("samples", 0) > self.count:
            return f"more samples of these settings than the {self.count} to be drawn"
        return None

    def _clear(self) -> None:
        """Removes what a sampling wrote; last what says that one did."""
        for file in [*self._files()]:
            file.unlink()
        (self.out / ABOUT).unlink(missing_ok=True)

    def _take_apart(self, finished: dict[str, Any]) -> None:
        """A finished set, of fewer samples or with images missing, as parts again."""
        trace = load_trace(self.out) if self.record else None
        start = 0
        for rows in read_rows(self.out / "samples.npz", "samples", ROWS):
            numbers = range(start, start + len(rows))
            kept = None if trace is None else trace.select(slice(start, numbers.stop))
            counts = finished["nfe"], finished["energy_evaluations"]
            self.take(numbers, SampleResult(torch.from_numpy(rows), kept, *counts))
            start = numbers.stop


def _numbered(folder: Path) -> list[Path]:
    """The files that are called by a number, in its order."""
    files = folder.iterdir() if folder.is_dir() else ()
    found = [f for f in files if f.stem.isdigit() and f.suffix in (".png", ".npz")]
    return sorted(found, key=lambda file: int(file.stem))


def _read_about(out: Path) -> dict[str, Any]:
    try:
        found = json.loads((out / ABOUT).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_part(file: Path, drawn: SampleResult) -> None:
    arrays: dict[str, Any] = {
        "samples": drawn.samples.numpy(),
        "counts": np.array([len(drawn.samples), drawn.nfe, drawn.energy_evaluations]),
    }
    if drawn.trace is not None:
        arrays |= {f"trace.{name}": a.numpy() for name, a in drawn.trace.arrays().items()}
        arrays["seal"] = np.array([getattr(drawn.trace, name) for name in SEAL])
    with whole(file) as partial, partial.open("wb") as opened:
        np.savez(opened, **arrays)


# Both raise one of UNREADABLE for a file that is not as it was written.


def _read_samples(file: Path) -> Tensor:
    with np.load(file, allow_pickle=False) as archive:
        return torch.from_numpy(archive["samples"])


def _read_record(file: Path) -> Record:
    with np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "samples"}
    trace = None
    if "seal" in arrays:
        recorded: dict[str, Any] = {
            name.removeprefix("trace."): torch.from_numpy(array)
            for name, array in arrays.items()
            if name.startswith("trace.")
        }
        trace = Trace(**recorded, **dict(zip(SEAL, arrays["seal"].tolist(), strict=True)))
        trace.require_untouched()
    return Record(trace, *arrays["counts"].tolist())
