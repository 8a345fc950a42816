"""A made-up record of eight sizes and three seeds: shapes of a real one, numbers of a plain law."""

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from energydiff.data import Normalization
from energydiff.denoisers import build_denoiser
from energydiff.energies import NoiseRange
from energydiff.files import write_json
from energydiff.memorisation.summary import summary, time_table
from energydiff.potentials import MLP
from energydiff.saving import SavedModel, save_model

SIZES = (4, 16, 32, 64, 128, 256, 512, 1024)
WATCH = [500.0 * 2**i for i in range(9)]
LEVELS = [0.08 * 1.9**i for i in range(7)]
PHASES = ("memorised", "spurious", "generalised")
D = 8  # eigenvalues

Record = dict[str, Any]


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Record]:
    """Writes :func:`made_up` into a folder, with what runs of such a shape left there."""

    def make(folder: Path, shape: Sequence[int] = (2,), **settings: Any) -> Record:
        record = made_up(**settings)
        write_json(folder / "study.json", record)
        write_runs(record, folder, shape)
        found: Record = json.loads((folder / "study.json").read_text())
        return found

    return make


def made_up(
    sizes: Sequence[int] = SIZES,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    middle: float = 70.0,
    peak: float = 0.15,
    noise: float = 0.01,
    energies: bool = True,
    halves: Sequence[int] = (16, 64, 256),
    watched: bool = True,
    features: Sequence[str] = ("classifier",),
) -> Record:
    """A record.

    Args:
        middle: K at which half is memorised.
        peak: largest spurious share above 0.01.
        noise: by which a seed is above the one before it, in every share.
    """
    random = np.random.default_rng(0)
    rows = []
    for size in sizes:
        for seed in seeds:
            row = _run(size, seed, (middle, peak, noise), ["pixels", *features])
            row["watched"] = _watched(size, middle) if watched else {"images": []}
            if energies:
                row |= _energy(random, size, row["spaces"]["pixels"]["samples"])
            rows.append(row)
    pairs = [
        _run(size, 0, (middle, peak, noise), ["pixels", *features])
        | {"skip": size, "watched": {"images": []}}
        for size in halves
    ]
    spaces = ["pixels", *features]
    return {
        "fit": ["--config", "digits.yaml"],
        "design": {
            **{"sizes": list(sizes), "seeds": list(seeds), "halves": list(halves)},
            **{"watch": [int(at) for at in WATCH] if watched else [], "watched": 256},
        },
        "looks": {
            **{"samples": 1000, "share": 0.01, "features": list(features), "exemplars": 8},
            **{"trials": 5, "sampler": "heun", "steps": 18, "batch_size": 256},
        },
        "data": {"train": 1499, "held_out": 298},
        "rules": {name: {"memorised": 1.25, "spurious": 1.5, "block": 298} for name in spaces},
        "duplicates": {
            **{"searched": 1499, "equal": 2, "near": 3},
            "pairs": [["a", "b", 0.5], ["c", "d", 0.75], ["e", "f", 1.0]],
        },
        "sigma": 0.8,
        "runs": [*rows, *pairs],
        "summary": {space: summary(rows, space) for space in spaces},
        "times": time_table(rows, 0.1),
        "fates": _fates(random, sizes, seeds) if energies else [],
        "halves": [_halves(size, middle, energies) for size in halves],
        "processor_seconds": 5400.0,
    }


def _run(
    size: int,
    seed: int,
    law: tuple[float, float, float],
    spaces: Sequence[str],
) -> Record:
    middle, peak, noise = law
    off = math.log(size / middle)
    memorised = float(np.clip(1 / (1 + math.exp(1.8 * off)) + noise * (seed - 1), 0, 1))
    spurious = 0.01 + peak * math.exp(-(off**2) / 2) + noise * (seed - 1)
    spurious = float(np.clip(spurious, 0, 1 - memorised))
    shares = {
        "samples": (memorised, spurious, 1 - memorised - spurious, memorised),
        "held_out": (0.005, 0.01, 0.985, 0.01),
    }
    names = (*PHASES, "copies")
    told = {kind: dict(zip(names, values, strict=True)) for kind, values in shares.items()}
    counted = {kind: row | {"count": 1000} for kind, row in told.items()}
    return {
        **{"images": size, "seed": seed, "skip": 0, "distinct": size, "held_out": 298},
        "spaces": dict.fromkeys(spaces, counted),
    }


def _watched(size: int, middle: float) -> Record:
    most = 1 / (1 + (size / middle) ** 1.8)
    part = [1 / (1 + (120 * size / images) ** 2) for images in WATCH]
    fall = [0.25 + 600 / (images + 600) for images in WATCH]
    return {
        "images": WATCH,
        "memorised": [most * p for p in part],
        "held_out_loss": [f + 0.6 * most * p for f, p in zip(fall, part, strict=True)],
        "train_loss": [f * (1 - 0.6 * most * p) for f, p in zip(fall, part, strict=True)],
    }


def _energy(random: np.random.Generator, size: int, shares: Record) -> Record:
    counts = {name: 8 if shares[name] > 0.02 else 0 for name in PHASES} | {"held_out": 8}
    counts["train"] = min(8, size)
    depth = {"memorised": 0.5, "spurious": 1.5, "generalised": 4.0, "held_out": 8.0, "train": 0.3}

    def around(value: float, *shape: int) -> list[Any]:
        found: list[Any] = (value + 0.1 * (1 + abs(value)) * random.normal(size=shape)).tolist()
        return found

    states, minima = {}, {}
    for kind, n in counts.items():
        if not n:
            continue
        deep = depth[kind] + 0.2 * math.log(size)
        critical = random.choice([0.0, *LEVELS[:2]] if deep > 5 else LEVELS[1:5], n)
        states[kind] = {
            **{"count": n, "V": around(deep, n), "V_of_data": around(deep + 1, n)},
            **{"E": around(deep + 40, n), "slope": around(0.05 * deep, n)},
            "eigenvalues": np.sort(around(0.7 - 0.2 * deep, n, D), 1).tolist(),
            "local_dimension": [around(20 * deep * 0.5**i, n) for i in range(len(LEVELS))],
            **{"critical_noise": critical.tolist(), "basin_radius": (8 * critical).tolist()},
            "recovered": {side: [0.5] * len(LEVELS) for side in ("share", "low", "high")},
        }
        if kind in PHASES:
            minima[kind] = {
                **{"found": n, "minima": n - 1, "distinct": n - 2},
                "spurious_minima": 5 if kind == "spurious" else 0,
                **{"sample": list(range(n)), "index": [0] * (n - 1) + [1]},
                **{"grad_norm": [1e-12] * n, "margin": [0.3] * n, "trusted": [True] * n},
                **{"lowest_eigenvalue": [0.3] * (n - 1) + [-0.3], "V": around(deep, n)},
                **{"moved": around(1, n), "to_train": around(1, n)},
            }
    alone = size if size < 100 else size // 3
    exact = {"alone": alone, "spurious": int(size > 100), "minima": alone + 1}
    counts = {kind: row["count"] for kind, row in states.items() if kind in PHASES}
    rests = {
        "sigma": LEVELS,
        "phases": {
            kind: {
                "count": n,
                "home": [n - min(i, n) for i in range(len(LEVELS))],
                "spurious": [min(i, n) for i in range(len(LEVELS))],
                "moved": [0.2 * i for i in range(len(LEVELS))],
            }
            for kind, n in counts.items()
        },
    }
    return {
        **{"levels": LEVELS, "states": states, "minima": minima, "of_data": exact},
        "rests": rests,
    }


def _fates(random: np.random.Generator, sizes: Sequence[int], seeds: Sequence[int]) -> list[Record]:
    names = ("persists", "split", "valley", "memory", "gone")
    return [
        {"seed": seed, "from": a, "to": b, "fates": random.choice(names, 2 * (i % 4)).tolist()}
        for seed in seeds
        for i, (a, b) in enumerate(pairwise(sizes))
    ]


def _halves(size: int, middle: float, energies: bool) -> Record:
    apart = [1.4 / (1 + (size / middle) * level) for level in LEVELS]
    return {
        **{"images": size, "sigma": LEVELS, "denoisers": apart},
        "energies": [1.2 * value if energies else math.nan for value in apart],
        **{"samples": 1 - 1 / (1 + size / middle), "apart": 5.0, "chance": 0.01},
    }


def write_runs(record: Record, folder: Path, shape: Sequence[int]) -> None:
    """Of the first seed what pictures of exemplars need: samples, their phases and, of images, an
    untrained model of scikit-learn's digits."""
    images = len(shape) == 3
    random = np.random.default_rng(1)
    for size in record["design"]["sizes"]:
        run = folder / "runs" / f"{size}_seed{record['design']['seeds'][0]}"
        run.mkdir(parents=True)
        np.save(run / "samples.npy", random.normal(0, 0.5, (30, *shape)).astype(np.float32))
        if not images:
            continue
        np.savez(
            run / "phases.npz",
            phase=random.choice(3, 30, p=_shares_of(record, size)),
            nearest=random.integers(0, size, (30, 2)),
        )
        denoiser = build_denoiser(MLP(tuple(shape), width=4, depth=1), 0.5, "inner_product")
        denoiser.noise = NoiseRange(0.02, 10.0)
        config = {
            "seed_everything": 0,
            "data": {
                "source": {"class_path": "energydiff.data.Digits"},
                **{"sigma_data": 0.5, "subset": {"images": size, "seed": 0, "skip": 0}},
            },
        }
        save_model(SavedModel(denoiser, Normalization(0, 16), (), config), run / "export")


def _shares_of(record: Record, size: int) -> list[float]:
    run = next(run for run in record["runs"] if run["images"] == size)
    return [run["spaces"]["pixels"]["samples"][name] for name in PHASES]
