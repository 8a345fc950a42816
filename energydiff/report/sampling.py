"""The folder that a sampling run leaves: images, arrays, the record and what it proves."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.files import write_json
from energydiff.report.arrays import Array, write_rows
from energydiff.report.free_energy import free_energy_plot
from energydiff.report.sample_set import SampleSet
from energydiff.report.samples import sample_grid
from energydiff.report.trace import load_trace, write_trace
from energydiff.sampling import Certificate, Diagnosis, Trace, certify, join_traces

FAR = 3.0  # times the data's range beyond which samples are not like data
SHOWN_IN_GRID = 400
SHOWN_CURVES = 500


@dataclass(frozen=True)
class Sampled:
    """What a finished set of samples comes to.

    Attributes:
        certificate: of all of them, ``None`` without a record.
        diagnosis: what the sampler says of them from the record, if anything.
        nfe, energy_evaluations: as in :class:`~energydiff.sampling.SampleResult`.
    """

    certificate: Certificate | None
    nfe: int
    energy_evaluations: int
    outside_range: "OutsideRange"
    diagnosis: Diagnosis | None = None


def write_sampling(
    samples: SampleSet,
    columns: int | None = None,
    diagnose: Callable[[Trace], Diagnosis | None] = lambda _: None,
) -> Sampled:
    """Make of the parts of a set the files that it leaves, or read what a finished one came to.

    ``samples.npz`` (``samples`` in model coordinates, ``raw`` in data units, and ``images`` as
    uint8 (N, H, W, C)), ``grid.png`` of the first 400; with a record also ``trace.npz``,
    ``trace.json``, ``free_energy.png`` with the curves of the first 500, and
    ``certificate.json``. Only the record of all samples is ever in memory, and of the samples a
    part. ``columns`` are those of the grid; ``diagnose`` is the sampler's.

    Raises:
        UserError: a sample is missing, or, as of an image, not finite.
    """
    if (done := samples.finished) is not None:
        trace = load_trace(samples.out) if samples.record else None
        return Sampled(
            *(certify(trace) if trace else None, done["nfe"], done["energy_evaluations"]),
            *(_outside(done), diagnose(trace) if trace else None),
        )
    records = list(samples.records())
    nfe = max(record.nfe for record in records)
    energy_evaluations = max(record.energy_evaluations for record in records)
    reached = _reach(samples)
    outside = outside_range(reached)
    cost = {"nfe": nfe, "energy_evaluations": energy_evaluations}
    beside = {**cost, "outside_range": vars(outside)}
    certificate = diagnosis = None
    if samples.record:  # first: it explains samples that cannot be drawn
        trace = join_traces([record.trace for record in records if record.trace is not None])
        diagnosis = diagnose(trace)
        told = {} if diagnosis is None else {"diagnosis": diagnosis.as_dict()}
        certificate = _write_record(trace, samples, beside | told)
    if samples.are_images and not reached.isfinite().all():
        number = int(reached.isfinite().int().argmin())
        raise UserError(f"Sample {number} holds values that are not finite.")
    _write_arrays(samples)
    if samples.are_images:
        grid, normalization = samples.out / "grid.png", samples.model.normalization
        sample_grid(_first(samples), normalization, grid, columns)
    samples.finish(beside)
    return Sampled(certificate, nfe, energy_evaluations, outside, diagnosis)


@dataclass(frozen=True)
class OutsideRange:
    """What leaves the data's range by more than a factor of 3.

    Attributes:
        samples: how many do; one that is not finite does.
        factor: the largest |x| over all samples, in units of the range's own.
    """

    samples: int
    factor: float


def outside_range(reach: Tensor) -> OutsideRange:
    """Of the largest |x| of each sample in units of that of the data's range, (B,), B ≥ 1."""
    return OutsideRange(int((~(reach <= FAR)).sum()), float(reach.max()))


def _outside(finished: dict[str, Any]) -> OutsideRange:
    """As a file gives it back, which knows no infinity."""
    samples, factor = finished["outside_range"].values()
    return OutsideRange(samples, math.inf if factor is None else factor)


def _reach(samples: SampleSet) -> Tensor:
    """The largest |x| of each sample in units of that of the data's range, (N,)."""
    reach, start = torch.empty(samples.count), 0  # one block: small ones would pin those freed
    for x in samples.samples():
        reach[start : start + len(x)] = x.abs().flatten(1).amax(1)
        start += len(x)
    return reach / samples.model.normalization.reach


def _first(samples: SampleSet) -> Tensor:
    """Those that the grid shows."""
    found: list[Tensor] = []
    for x in samples.samples():
        found.append(x)
        if sum(len(part) for part in found) >= SHOWN_IN_GRID:
            break
    return torch.cat(found)[:SHOWN_IN_GRID]


def _write_record(trace: Trace, samples: SampleSet, beside: dict[str, Any]) -> Certificate:
    """``beside``: what else is known of the samples."""
    certificate, out = certify(trace), samples.out
    write_trace(trace, out, samples.settings)
    free_energy_plot(trace.select(slice(SHOWN_CURVES)), out / "free_energy.png", certificate)
    about = certificate.as_dict() | beside | {"settings": samples.settings}
    write_json(out / "certificate.json", about)
    return certificate


def _write_arrays(samples: SampleSet) -> None:
    """``samples.npz``, reading the parts once for each array."""
    normalization = samples.model.normalization
    kinds: dict[str, Callable[[Tensor], Array]] = {
        "samples": lambda x: x.numpy(),
        "raw": lambda x: normalization.decode(x).numpy(),
    }
    if samples.are_images:
        kinds["images"] = lambda x: normalization.to_uint8(x).movedim(1, -1).numpy()
    arrays = {name: map(make, samples.samples()) for name, make in kinds.items()}
    write_rows(samples.out / "samples.npz", samples.count, arrays)
