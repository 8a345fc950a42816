"""What a study of many sizes and seeds says: shares with intervals, crossings, growing times."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import scipy
import torch

from energydiff.errors import UserError
from energydiff.landscape.basins import wilson
from energydiff.memorisation.phases import Phase
from energydiff.memorisation.times import generalising_time, growth, memorising_time

LEVEL = 0.95
Runs = Sequence[Mapping[str, Any]]


def summary(runs: Runs, space: str) -> dict[str, Any]:
    """Of a study's main runs, in one space.

    ``shares``: of every size, each phase of samples and of held-out images, as mean, low and high
    over seeds; ``crossing``: K_c, where the memorised share crosses half, of each seed and in the
    mean; ``peak``: the size of the largest spurious share, its difference from the control with two
    intervals, the second widened for having chosen the size.
    """
    sizes = sorted({run["images"] for run in runs})
    seeds = sorted({run["seed"] for run in runs})
    by_size = {size: [r for r in runs if r["images"] == size] for size in sizes}
    shares = [
        {"images": size}
        | {
            kind: {
                phase.name.lower(): _mean(
                    [run["spaces"][space][kind][phase.name.lower()] for run in by_size[size]]
                )
                for phase in Phase
            }
            for kind in ("samples", "held_out")
        }
        for size in sizes
    ]
    memorised = {
        seed: [
            (run["images"], run["spaces"][space]["samples"]["memorised"])
            for run in sorted(runs, key=lambda run: run["images"])
            if run["seed"] == seed
        ]
        for seed in seeds
    }
    crossings = [crossing(points) for points in memorised.values()]
    return {
        "shares": shares,
        "crossing": {"of_seeds": crossings, "mean": _geometric(crossings)},
        "peak": _peak(by_size, space),
    }


def crossing(points: Sequence[tuple[float, float]], half: float = 0.5) -> float:
    """K at which a falling share passes ``half``, linear in log K; NaN where it never does."""
    for (k, share), (larger, less) in pairwise(points):
        if share >= half > less:
            part = (share - half) / (share - less)
            return math.exp((1 - part) * math.log(k) + part * math.log(larger))
    return math.nan


def time_table(runs: Runs, share: float) -> dict[str, Any]:
    """τ_mem and τ_gen of every run that was watched, and how they grow with K."""
    rows = []
    for run in runs:
        watched = run.get("watched") or {}
        if not watched.get("images"):
            continue
        series = {
            name: list(zip(watched["images"], values, strict=True))
            for name, values in watched.items()
            if name != "images"
        }
        rows.append(
            {
                "images": run["images"],
                "seed": run["seed"],
                "memorising": memorising_time(series["memorised"], share),
                "generalising": generalising_time(series["held_out_loss"]),
            }
        )
        if rows[-1]["memorising"] <= watched["images"][0]:
            rows[-1]["memorising"] = math.nan  # begun before the first look, nobody knows when
    fits: dict[str, Any] = {}
    for name in ("memorising", "generalising"):
        # A size counts where every seed got there: late ones alone would bend the fit.
        whole = {
            k
            for k in {r["images"] for r in rows}
            if all(math.isfinite(r[name]) for r in rows if r["images"] == k)
        }
        used = [row for row in rows if row["images"] in whole]
        try:
            fit = asdict(growth([r["images"] for r in used], [r[name] for r in used]))
            fits[name] = fit | {"sizes": sorted(whole)}
        except UserError:
            fits[name] = None
    return {"runs": rows, "fits": fits, "share": share}


def resting_noise(scans: Sequence[Mapping[str, Any]]) -> float:
    """The noise at which classes separate best: where the share of memorised exemplars that rest at
    a training image, and the share of the others that rest elsewhere, have the largest sum. Of
    several such noise levels the highest.

    Args:
        scans: of the runs of a study, with ``rests`` as in ``study.json``.
    """
    known = [one["rests"] for one in scans if one]
    if not known:
        return 0.0  # of baselines, which have no states
    levels = np.asarray(known[0]["sigma"])

    def share(what: str, *phases: str) -> Any:
        found = [one["phases"][name] for one in known for name in phases if name in one["phases"]]
        count = sum(one["count"] for one in found)
        return sum(np.asarray(one[what]) for one in found) / max(1, count) + 0 * levels

    score = share("home", "memorised") + share("spurious", "spurious", "generalised")
    return float(levels[score >= score.max() - 1e-9].max())


def _mean(values: Sequence[float], level: float = LEVEL) -> dict[str, float]:
    """Mean with Student's interval over seeds; of one seed no interval."""
    array = np.asarray(values, float)
    mean = float(array.mean())
    if len(array) < 2:
        return {"mean": mean, "low": math.nan, "high": math.nan}
    reach = float(scipy.stats.t.ppf((1 + level) / 2, len(array) - 1) * scipy.stats.sem(array))
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def _geometric(values: Sequence[float]) -> dict[str, float]:
    found = [math.log(value) for value in values if math.isfinite(value)]
    if not found:
        return {"mean": math.nan, "low": math.nan, "high": math.nan}
    return {name: math.exp(value) for name, value in _mean(found).items()}


def _peak(by_size: Mapping[int, Runs], space: str) -> dict[str, Any]:
    def differences(runs: Runs) -> list[float]:
        return [
            run["spaces"][space]["samples"]["spurious"]
            - run["spaces"][space]["held_out"]["spurious"]
            for run in runs
        ]

    at = max(by_size, key=lambda size: _mean(differences(by_size[size]))["mean"])
    values = differences(by_size[at])
    found = _mean(values)
    # For having chosen the size among several, and for the few held-out images of the control,
    # which all seeds share.
    shares = [run["spaces"][space]["samples"]["spurious"] for run in by_size[at]]
    share = _mean(shares, 1 - (1 - LEVEL) / len(by_size))
    control = by_size[at][0]["spaces"][space]["held_out"]
    seen = torch.tensor(control["spurious"] * control["count"])
    low, high = (float(end) for end in wilson(seen, control["count"]))
    widened = {
        "mean": found["mean"],
        "low": share["low"] - high,
        "high": share["high"] - low,
    }
    return {
        "images": at,
        "difference": found,
        "widened": widened,
        "seeds": len(values),
        "above_control": bool(found["low"] > 0),
        "above_control_widened": bool(widened["low"] > 0),
    }
