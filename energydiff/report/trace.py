"""The record of a sampling on disk, and what its arrays mean."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from energydiff.errors import UserError
from energydiff.files import write_arrays, write_json
from energydiff.sampling import Trace

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
    "ancestor": "place in its population that the line of each sample held at each point,"
    " (points, samples); all other arrays are along these lines",
    "ess": "effective sample size of its population after each step, before resampling,"
    " (steps, samples)",
    "log_normalizer": "its population's estimate of log of the integral of exp(-E(x, sigma)) after"
    " each step, (steps, samples)",
}
SEAL = ("claim", "descent_claim", "landscape_claim", "digest")
RECORD = ("trace.npz", "trace.json", "free_energy.png", "certificate.json")


def write_trace(trace: Trace, out: Path, settings: dict[str, Any]) -> None:
    """Writes ``trace.npz`` and ``trace.json``; ``settings`` go into the latter."""
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
