"""The folder that a sampling run leaves: images, arrays, the record and what it proves."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from energydiff.data import write_images
from energydiff.errors import UserError
from energydiff.files import write_arrays, write_json
from energydiff.report.free_energy import free_energy_plot
from energydiff.report.samples import sample_grid
from energydiff.sampling import Certificate, SampleResult, Trace, certify
from energydiff.saving import SavedModel

TRACE_MEANING = {
    "sigma": "noise level at the points of the trajectory, (points,)",
    "free_energy": "Lyapunov function V(x, sigma) at each point, (points, samples)",
    "energy": "E(x, sigma) at each point in nats, (points, samples)",
    "grad_norm": "norm of grad V = x - D(x, sigma) at each point, (points, samples)",
    "descent": "V(x', sigma) - V(x, sigma): the move at fixed noise, (steps, samples)",
    "landscape": "V(x', sigma') - V(x', sigma): the change of noise at a fixed point,"
    " (steps, samples); descent + landscape is the change of free_energy",
    "bound": "eta (1 - eta/2) |grad V|^2 for the eta of the step taken, 1 - sigma'/sigma unless a"
    " guard shortened it: an exact energy's Euler step has descent <= -bound, (steps, samples)",
    "x_norm": "norm of x at each point, the scale of its rounding, (points, samples)",
    "fallbacks": "proposals refused at each step, by a guard or by Metropolis, (steps, samples)",
}


FAR = 3.0  # times the data's range beyond which samples are not like data
SEAL = ("claim", "descent_claim", "landscape_claim", "digest")
RECORD = ("trace.npz", "trace.json", "free_energy.png", "certificate.json")


def require_room(out: Path, count: int, record: bool) -> None:
    """``UserError`` if ``out`` holds files that are no earlier set of samples, or more of one.

    Only what a sampling left is replaced.

    ``count`` images are to be written, and a record of their making if ``record``.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out takes a folder.")
    ours = ("samples.npz", "grid.png", *RECORD)
    foreign = [name for name in ours if (out / name).exists()]
    foreign += [f"images/{f.name}" for f in out.glob("images/*.png") if f.stem.isdigit()][:1]
    if foreign and not _is_sampling(out):
        raise UserError(
            f"{out} holds {foreign[0]}, and not as a sampling leaves it: choose another --out or"
            " move it away."
        )
    stale = [f for f in out.glob("images/*.png") if f.stem.isdigit() and int(f.stem) >= count]
    if stale:
        raise UserError(
            f"{out / 'images'} holds {len(stale)} images beyond the {count} to be written; choose"
            " another --out or move them away."
        )
    if not record and (old := [name for name in RECORD if (out / name).exists()]):
        raise UserError(
            f"{out} holds the record of other samples ({', '.join(old)}); choose another --out or"
            " move it away."
        )


def _is_sampling(folder: Path) -> bool:
    """Whether a sampling, perhaps one whose images could not be drawn, wrote into a folder."""
    try:
        if (folder / "samples.npz").exists():
            with np.load(folder / "samples.npz", allow_pickle=False) as archive:
                return {"samples", "raw"} <= set(archive.files)
        return "digest" in json.loads((folder / "trace.json").read_text())
    except (OSError, ValueError, TypeError, AttributeError, BadZipFile):
        return False


def write_sampling(
    result: SampleResult,
    model: SavedModel,
    out: Path,
    settings: dict[str, Any],
    columns: int | None = None,
) -> Certificate | None:
    """Write everything about one set of samples into ``out``; its certificate if it has a trace.

    ``samples.npz`` (``samples`` in model coordinates, ``raw`` in data units, and ``images`` as
    uint8 (N, H, W, C)), ``images/000000.png``, …, ``grid.png``; with a trace also ``trace.npz``,
    ``trace.json``, ``free_energy.png`` and ``certificate.json``. ``settings`` go into the JSONs,
    ``columns`` are those of the grid.
    """
    out.mkdir(parents=True, exist_ok=True)
    certificate = None
    if result.trace is not None:  # first: it explains samples that cannot be drawn
        certificate = certify(result.trace)
        _write_trace(result.trace, out, settings)
        free_energy_plot(result.trace, out / "free_energy.png")
        beside = {
            "nfe": result.nfe,
            "energy_evaluations": result.energy_evaluations,
            "outside_range": vars(outside_range(result.samples)),
            "settings": settings,
        }
        write_certificate(certificate, out, beside)
    arrays = {
        "samples": result.samples.numpy(),
        "raw": model.normalization.decode(result.samples).numpy(),
    }
    if len(model.denoiser.shape) == 3 and model.denoiser.shape[0] in (1, 3):
        pixels = model.normalization.to_uint8(result.samples)
        arrays["images"] = pixels.movedim(1, -1).numpy()
        write_images(result.samples, out / "images", model.normalization)
        sample_grid(result.samples, model.normalization, out / "grid.png", columns)
    write_arrays(out / "samples.npz", arrays)
    return certificate


def write_certificate(certificate: Certificate, out: Path, beside: dict[str, Any]) -> None:
    """Write ``certificate.json``: its numbers, and ``beside`` them what is known of the samples."""
    write_json(out / "certificate.json", certificate.as_dict() | beside)


@dataclass(frozen=True)
class OutsideRange:
    """What leaves the data's range, −1 to 1 in model coordinates, by more than a factor of 3.

    Attributes:
        samples: how many do; one that is not finite does.
        factor: the largest |x|, over all samples.
    """

    samples: int
    factor: float


def outside_range(samples: Tensor) -> OutsideRange:
    """Of samples (B, \\*shape), B ≥ 1."""
    reach = samples.abs().flatten(1).amax(1)
    return OutsideRange(int((~(reach <= FAR)).sum()), float(reach.max()))


def _write_trace(trace: Trace, out: Path, settings: dict[str, Any]) -> None:
    arrays = {name: array.numpy() for name, array in trace.arrays().items()}
    write_arrays(out / "trace.npz", arrays)
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    write_json(
        out / "trace.json",
        {
            "arrays": {n: {"meaning": TRACE_MEANING[n], "shape": s} for n, s in shapes.items()},
            **{name: getattr(trace, name) for name in SEAL},
            "settings": settings,
        },
    )


def load_trace(folder: str | Path) -> Trace:
    """The trace that a sampling run left in ``folder``; ``certify`` refuses it if it was edited.

    Raises UserError where there is none.
    """
    folder = Path(folder)
    try:
        described = json.loads((folder / "trace.json").read_text())
        with np.load(folder / "trace.npz", allow_pickle=False) as archive:
            arrays: dict[str, Any] = {name: torch.from_numpy(archive[name]) for name in archive}
        return Trace(**arrays, **{name: described[name] for name in SEAL})
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder} holds no trace.npz and trace.json of samples ({error})."
        ) from error
