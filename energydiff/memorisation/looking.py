"""One run of a study, looked at: its samples sorted, their states measured, their minima shown.

Each function works in a process of its own and keeps what it found in the run's folder, so that a
study goes on from there.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from energydiff.data import Source, Splits, Subset
from energydiff.drawing import Drawing
from energydiff.energies import EmpiricalData
from energydiff.evaluation import EvaluationData, open_extractor
from energydiff.evaluation.candidate import Quantised
from energydiff.evaluation.reference import reference_features
from energydiff.evaluation.settings import named_sampler
from energydiff.files import whole, write_arrays, write_json
from energydiff.landscape.surface import Surface
from energydiff.memorisation.halves import compare_halves
from energydiff.memorisation.minima import exact_minima, fates, rest, scan
from energydiff.memorisation.phases import Phase, Rule, Sorted, sort_samples, without_copies
from energydiff.memorisation.states import measure_states
from energydiff.progress import with_progress
from energydiff.sampling import geometric_sigmas
from energydiff.saving import SavedModel, open_model

PIXELS = "pixels"
LEVELS = 7  # of noise, for local dimensions and basins
RESTS = 9  # at which exemplars are let down
KINDS = tuple(phase.name.lower() for phase in Phase)


@dataclass(frozen=True)
class Looks:
    """How every run of a study is looked at.

    Args:
        samples: Generated samples that are sorted.
        share: Of held-out samples that would pass for memorised, and for spurious: the thresholds.
        features: Extractors in whose features samples are sorted too.
        exemplars: Of each class, whose states, basins and minima are measured.
        trials: Of noising and coming back, of each exemplar and noise.
        sampler: A name from docs/sample.md.
        steps: Down Karras' grid, before a final denoising.
        batch_size: Samples at a time.
    """

    samples: int = 1_000
    share: float = 0.01
    features: tuple[str, ...] = ()
    exemplars: int = 8
    trials: int = 5
    sampler: str = "heun"
    steps: int = 18
    batch_size: int = 256


@dataclass(frozen=True)
class Opened:
    """A trained run with its data: all training samples, its own, each once, and the held-out."""

    saved: SavedModel
    everything: Source
    train: Source
    held_out: Source

    @classmethod
    def at(cls, folder: Path) -> "Opened":
        saved = open_model(folder / "export")
        splits = data_of(saved.config, folder)
        subset = saved.config["data"].get("subset")
        own = Subset(**subset).of(splits.train) if subset else splits.train
        return cls(saved, splits.train, without_copies(own), splits.held_out)

    @property
    def levels(self) -> list[float]:
        """Noise levels from a tenth of the data's RMS to four times it, or the model's ends."""
        low, high = self.saved.denoiser.require_noise()
        ends = max(1.5 * low, 0.1 * self.sigma_data), min(high, 4 * self.sigma_data)
        found: list[float] = geometric_sigmas(LEVELS - 1, *ends).flip(0).tolist()
        return found

    @property
    def sigma_data(self) -> float:
        """RMS of the data."""
        return float(self.saved.config["data"]["sigma_data"])


def data_of(config: dict[str, Any], folder: Path) -> Splits:
    """All the data of a run, its subset not yet taken; with labels where there are any, which
    extractors may need."""
    return EvaluationData.of_run(config, folder).open()


def kept(file: Path, settings: dict[str, Any], work: Callable[[], dict[str, Any]]) -> Any:
    """What a file holds of these settings, or what ``work`` finds, written there."""
    settings = json.loads(json.dumps(settings))
    try:
        content = json.loads(file.read_text())
        if content["settings"] == settings:
            return content["found"]
    except (OSError, ValueError, LookupError, TypeError):
        pass
    found = work()
    write_json(file, {"settings": settings, "found": found})
    return json.loads(file.read_text())["found"]


def sorted_run(folder: Path, looks: Looks, rules: dict[str, Rule]) -> dict[str, Any]:
    """Shares of every phase among samples and held-out images, in every space.

    Samples stay in ``samples.npy``, their phases and nearest training images in ``phases.npz``.
    """
    settings = {"looks": asdict(looks), "rules": {n: asdict(r) for n, r in rules.items()}}
    return kept(folder / "sorted.json", settings, partial(_sort, folder, looks, rules))


def _sort(folder: Path, looks: Looks, rules: dict[str, Rule]) -> dict[str, Any]:
    run = Opened.at(folder)
    samples = _draw(run, looks)
    held_out = run.held_out.spread(looks.samples)
    found, shares = {}, {}
    train: Tensor | Source
    for space, rule in rules.items():
        if space == PIXELS:
            ours, train, control = samples, run.train, held_out.clean()
        else:
            extractor = open_extractor(space, train=run.everything, held_out=run.held_out)
            quantised = Quantised(extractor, run.saved.normalization, degraded=False)
            parts = [extractor.features(quantised(part)) for part in samples.split(256)]
            ours = torch.cat(parts)
            train, control = (
                reference_features(source, extractor).features for source in (run.train, held_out)
            )
        found[space] = sort_samples(ours, train, rule)
        shares[space] = {
            "samples": _shares(found[space]),
            "held_out": _shares(sort_samples(control, train, rule)),
        }
    with whole(folder / "samples.npy") as partial_file, partial_file.open("wb") as stream:
        np.save(stream, samples.numpy())
    first = found[PIXELS]
    arrays = {
        "phase": first.phase,
        "nearest": first.train.index,
        "distance": first.train.distance,
        "other": first.others.distance,
    }
    write_arrays(folder / "phases.npz", {name: array.numpy() for name, array in arrays.items()})
    return {"spaces": shares, "distinct": len(run.train), "held_out": len(held_out)}


def _shares(found: Sorted) -> dict[str, float | int]:
    return {
        **{phase.name.lower(): found.share(phase) for phase in Phase},
        "copies": found.copies,
        "count": len(found.phase),
    }


def _draw(run: Opened, looks: Looks) -> Tensor:
    how = Drawing(batch_size=looks.batch_size)
    model = run.saved.denoiser.to(how.device).eval()
    sampler = named_sampler(looks.sampler, looks.steps, *model.require_noise())
    batches = list(how.batches(range(looks.samples)))
    with torch.no_grad():
        parts = [
            how.draw(model, sampler, numbers, trace=False).samples.cpu()
            for numbers in with_progress(batches, len(batches), "Sampling (batches)")
        ]
    return torch.cat(parts)


def exemplars(folder: Path, run: Opened, count: int) -> dict[str, Tensor]:
    """The first samples of each phase, and training and held-out images, each (n, \\*shape)."""
    samples = torch.from_numpy(np.load(folder / "samples.npy"))
    with np.load(folder / "phases.npz") as arrays:
        phase = torch.from_numpy(arrays["phase"])
    chosen = {name: samples[phase == i][:count] for i, name in enumerate(KINDS)}
    return chosen | {"held_out": run.held_out.clean(count), "train": run.train.clean(count)}


def scanned_run(folder: Path, looks: Looks, rule: Rule) -> dict[str, Any]:
    """At every noise level, how many exemplars of each phase come to rest at a training image, and
    how many elsewhere; of a model without an energy, nothing."""
    settings = {"looks": asdict(looks), "rule": asdict(rule)}
    return kept(folder / "scanned.json", settings, partial(_scan, folder, looks, rule))


def _scan(folder: Path, looks: Looks, rule: Rule) -> dict[str, Any]:
    run = Opened.at(folder)
    if run.saved.denoiser.energy is None:
        return {}
    levels = geometric_sigmas(RESTS - 1, run.levels[0], 2 * run.sigma_data).flip(0).tolist()
    surface, train, found = Surface(run.saved.denoiser), run.train.clean(), {}
    for name, x in exemplars(folder, run, looks.exemplars).items():
        if name in KINDS and len(x):
            rests = scan(surface, x, train, levels, rule.memorised)
            found[name] = {
                "count": len(x),
                "home": rests.home.sum(1).tolist(),
                "spurious": rests.spurious.sum(1).tolist(),
                "moved": rests.moved.median(1).values.tolist(),
            }
    return {"rests": {"sigma": levels, "phases": found}}


def measured_run(folder: Path, looks: Looks, rule: Rule, sigma: float) -> dict[str, Any]:
    """States and minima of the exemplars of every class; of a model without an energy, nothing."""
    settings = {"looks": asdict(looks), "rule": asdict(rule), "sigma": sigma}
    return kept(folder / "measured.json", settings, partial(_measure, folder, looks, rule, sigma))


def _measure(folder: Path, looks: Looks, rule: Rule, sigma: float) -> dict[str, Any]:
    run = Opened.at(folder)
    model = run.saved.denoiser
    if model.energy is None:
        return {}
    surface, train = Surface(model), run.train.clean()
    chosen = exemplars(folder, run, looks.exemplars)
    # All kinds at once: a few states take a network as long as many.
    together = measure_states(
        surface,
        torch.cat([*chosen.values()]),
        train,
        sigma,
        run.levels,
        delta=rule.memorised,
        trials=looks.trials,
    )
    states, minima, resting, first = {}, {}, {}, 0
    for name, x in chosen.items():
        if len(x):
            states[name] = together.plain(slice(first, first + len(x)))
            first += len(x)
        if len(x) and name in KINDS:
            found = rest(surface, x, train, sigma)
            minima[name] = found.plain(rule.memorised)
            resting[name] = found.points.x[found.spurious(rule.memorised)].numpy()
    write_arrays(folder / "minima.npz", resting)
    starts = torch.cat([chosen[name] for name in KINDS])
    exact = exact_minima(Surface(EmpiricalData(train.double())), train, starts, sigma)
    return {
        "levels": run.levels,
        "states": states,
        "minima": minima,
        "of_data": {
            "alone": exact.alone,
            "spurious": len(exact.spurious),
            "minima": len(exact.minima),
        },
    }


def followed(first: Path, second: Path, looks: Looks, rule: Rule, sigma: float) -> dict[str, Any]:
    """What the spurious minima of one run have become in the run of more images."""
    settings = {"from": first.name, "looks": asdict(looks), "rule": asdict(rule), "sigma": sigma}

    def work() -> dict[str, Any]:
        with np.load(first / "minima.npz") as arrays:
            known = [arrays[name] for name in arrays.files if len(arrays[name])]
        if not known:
            return {"fates": []}
        run = Opened.at(second)
        x = torch.from_numpy(np.concatenate(known))
        surface = Surface(run.saved.denoiser)
        return {"fates": fates(surface, x, run.train.clean(), sigma, rule.memorised)}

    return kept(second / "followed.json", settings, work)


def beside(first: Path, second: Path) -> dict[str, Any]:
    """Two runs on disjoint halves beside each other."""
    a, b = Opened.at(first), Opened.at(second)
    drawn = [torch.from_numpy(np.load(folder / "samples.npy")) for folder in (first, second)]
    count = min(len(part) for part in drawn)
    return compare_halves(
        a.saved.denoiser,
        b.saved.denoiser,
        a.held_out.clean(1_000),
        (drawn[0][:count], drawn[1][:count]),
        a.everything.clean(4_096).mean(0),
        a.levels,
    ).plain()
