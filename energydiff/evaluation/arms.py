"""One side of a comparison, measured: quality by blocks of seeds, cost, and what an energy adds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from energydiff.data import Source
from energydiff.denoisers import EnergyDenoiser
from energydiff.errors import UserError
from energydiff.evaluation.asymmetry import jacobian_asymmetry
from energydiff.evaluation.bits import bits_per_dim
from energydiff.evaluation.comparison import Arm, Cost, CurvePoint, Nearest, Quality
from energydiff.evaluation.draws import Drawing, Draws
from energydiff.evaluation.extractors import Extractor
from energydiff.evaluation.frechet import frechet_distance, gaussian_statistics
from energydiff.evaluation.measure import operations, timings
from energydiff.evaluation.quality import measure_quality
from energydiff.evaluation.reference import Reference
from energydiff.random import HELD_OUT, keyed_normal
from energydiff.sampling import Sampler, certify
from energydiff.saving import SavedModel, open_model

CERTIFIED = 256  # trajectories behind a certificate, and samples whose neighbours are sought
LIKELIHOODS = 256  # held-out images
ASYMMETRY_SIGMA = 0.5
ASYMMETRY_NUMBERS = 8_192  # denoised numbers whose derivatives are taken, over all points
TIMED = 16  # samples in a timing


def measure_arm(
    side: Side,
    features: Sequence[Tensor],
    measurement: Measurement,
    cost: Cost,
    curve: list[CurvePoint],
) -> Arm:
    """Everything about one side.

    Args:
        features: of each model's samples with its logits, (n, f + classes).
        cost, curve: as :func:`costs` and :func:`quality_curve` found them.
    """
    extractor, (train, held_out) = measurement.extractor, measurement.splits
    reference = measurement.reference.features
    qualities = [
        measure_quality(extractor.features(f), extractor.logits(f), reference) for f in features
    ]
    model, how = side.first, measurement.how
    energy = model.denoiser.energy
    count = min(CERTIFIED, measurement.blocks.samples)
    seeds = [(how.seed << 32) + i for i in range(count)]
    result = how.method(model)(model.denoiser, seeds=seeds, trace=energy is not None)
    return Arm(
        name=side.name,
        runs=[str(path) for path in side.paths],
        kind="baseline" if energy is None else "energy",
        quality=_mean_quality(qualities),
        block_frechet=[measurement.block_distances(f) for f in features],
        cost=cost,
        curve=curve,
        asymmetry=_asymmetry(model, held_out),
        nearest=_nearest(result.samples, train, held_out),
        certificate=None if result.trace is None else certify(result.trace).as_dict(),
        bits_per_dim=_bits(model, held_out),
    )


def costs(models: Sequence[SavedModel], methods: Sequence[Sampler], unit: int) -> list[Cost]:
    """What a sample costs each model, timed in turn within one run.

    Args:
        unit: operations of one forward pass, from :func:`forward_operations`.
    """

    def work(model: SavedModel, method: Sampler) -> int:
        return method(model.denoiser, seeds=range(TIMED), trace=False).nfe

    works = {
        str(i): partial(work, *pair) for i, pair in enumerate(zip(models, methods, strict=True))
    }
    seconds = timings(works, 2, "cpu")  # type: ignore[arg-type]
    return [
        Cost(work(), operations(work) / TIMED / unit, seconds[name].seconds / TIMED)
        for name, work in works.items()
    ]


def forward_operations(model: SavedModel) -> int:
    """Of one forward pass per sample: the denoiser of a baseline, E alone of an energy."""
    x = torch.zeros(TIMED, *model.denoiser.shape)
    call = model.denoiser.energy or model.denoiser.denoise
    with torch.no_grad():
        return operations(lambda: call(x, 1.0)) // TIMED


def quality_curve(
    side: Side, steps: Sequence[int], point_costs: Sequence[Cost], measurement: Measurement
) -> list[CurvePoint]:
    """Fréchet distance of the first model's first block of samples at several steps."""
    draws, size = side.draws[0], measurement.blocks.size
    return [
        CurvePoint(k, cost, measurement.block_distances(draws.features(0, size, steps=k))[0])
        for k, cost in zip(steps, point_costs, strict=True)
    ]


def _mean_quality(qualities: Sequence[Quality]) -> Quality:
    def mean(name: str) -> float:
        return statistics.fmean(getattr(quality, name) for quality in qualities)

    scored = qualities[0].inception_score is not None
    return Quality(
        mean("frechet"),
        mean("frechet_infinity"),
        mean("kid"),
        mean("inception_score") if scored else None,
        mean("precision"),
        mean("recall"),
    )


def _clean(source: Source, count: int) -> Tensor:
    """The first images of a source in model coordinates."""
    raw = [source[i][0] for i in range(min(count, len(source)))]
    return source.normalization.encode(torch.stack(raw))


def _asymmetry(model: SavedModel, held_out: Source) -> float:
    points = max(1, min(16, ASYMMETRY_NUMBERS // math.prod(model.denoiser.shape)))
    clean = _clean(held_out, points)
    noise = keyed_normal(0, range(len(clean)), model.denoiser.shape, HELD_OUT)
    return jacobian_asymmetry(model.denoiser, clean + ASYMMETRY_SIGMA * noise, ASYMMETRY_SIGMA)


def _nearest(samples: Tensor, train: Source, held_out: Source) -> Nearest:
    """To the nearest training image, of samples and of as many held-out images."""
    images = _clean(train, len(train)).flatten(1)

    def median(queries: Tensor) -> float:
        found = torch.cat([torch.cdist(q, images).amin(1) for q in queries.flatten(1).split(256)])
        return float(found.median()) / images.shape[1] ** 0.5

    return Nearest(median(samples.cpu()), median(_clean(held_out, len(samples))))


def _bits(model: SavedModel, held_out: Source) -> float | None:
    """Of held-out images under noise σ_min, by the energy; ``None`` if its gauge is not set."""
    energy = model.denoiser
    if not isinstance(energy, EnergyDenoiser) or not bool(energy.gauge.offset.any()):
        return None
    clean = _clean(held_out, LIKELIHOODS)
    noise = keyed_normal(0, range(len(clean)), energy.shape, HELD_OUT)
    with torch.no_grad():
        nats = energy(clean + model.sigma_min * noise, model.sigma_min)
    return float(bits_per_dim(nats, energy.dim, model.normalization).mean())
