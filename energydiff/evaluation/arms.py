"""One side of a comparison, measured: quality by blocks of seeds, cost, and what an energy adds."""

import math
import statistics
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from energydiff.data import Source
from energydiff.drawing import draw_samples
from energydiff.evaluation.candidate import Candidate
from energydiff.evaluation.cost import operations, timings
from energydiff.evaluation.measurement import Measurement
from energydiff.evaluation.neighbours import nearest_neighbours
from energydiff.evaluation.quality import measure_quality
from energydiff.evaluation.records import Arm, Cost, CurvePoint, Nearest, Quality
from energydiff.evaluation.settings import Settings
from energydiff.landscape.asymmetry import jacobian_asymmetry
from energydiff.likelihood.bits import bits_per_dim
from energydiff.random import HELD_OUT, keyed_normal
from energydiff.sampling import certify
from energydiff.saving import SavedModel

CERTIFIED = 256  # trajectories behind a certificate, and samples whose neighbours are sought
LIKELIHOODS = 256  # held-out images
ASYMMETRY_SIGMA = 0.5
ASYMMETRY_NUMBERS = 8_192  # denoised numbers whose derivatives are taken, over all points
TIMED = 16  # samples in a timing


def measure_arm(
    side: Sequence[Candidate],
    features: Sequence[Tensor],
    measurement: Measurement,
    cost: Cost,
    curve: list[CurvePoint],
) -> Arm:
    """Everything about one side: one model, or several that differ in their training seed.

    Args:
        features: of each model's samples with its logits, (n, f + classes).
        cost, curve: as :func:`costs` and :func:`quality_curve` found them.
    """
    extractor, (train, held_out) = measurement.extractor, measurement.splits
    settings, reference = measurement.settings, measurement.reference.features
    qualities = [
        measure_quality(extractor.features(f), extractor.logits(f), reference) for f in features
    ]
    first = side[0].model
    model, sampler = first.saved, settings.sampler_of(first.saved)
    numbers = range(min(CERTIFIED, settings.num_samples))
    drawn = draw_samples(model.denoiser, sampler, numbers, settings.drawing)
    device = settings.drawing.device
    energy = model.denoiser.to(device).energy  # Lightning left it elsewhere
    return Arm(
        name=first.name,
        runs=[str(candidate.model.path) for candidate in side],
        kind="baseline" if energy is None else "energy",
        quality=_mean_quality(qualities),
        block_frechet=[measurement.block_distances(f) for f in features],
        cost=cost,
        curve=curve,
        asymmetry=_asymmetry(model, held_out, device),
        nearest=_nearest(drawn.samples, train, held_out),
        certificate=None if drawn.trace is None else certify(drawn.trace),
        bits_per_dim=_bits(model, held_out, device),
    )


def costs(models: Sequence[SavedModel], settings: Settings) -> list[Cost]:
    """What a sample costs each model, timed in turn within one run.

    The unit of operations is a forward pass of the last model: the denoiser of a baseline, E alone
    of an energy; NaN of a model without products of matrices.
    """
    device = settings.drawing.device
    evaluations: dict[str, int] = {}

    def sample(name: str, model: SavedModel) -> None:
        sampler = settings.sampler_of(model)
        evaluations[name] = sampler(model.denoiser, seeds=range(TIMED), trace=False).nfe

    for model in models:
        model.denoiser.to(device)
    works = {str(i): partial(sample, str(i), model) for i, model in enumerate(models)}
    x = torch.zeros(TIMED, *models[-1].denoiser.shape, device=device)
    forward = models[-1].denoiser.energy or models[-1].denoiser.denoise
    with torch.no_grad():
        unit = operations(lambda: forward(x, 1.0))
    counts = {name: operations(work) for name, work in works.items()}
    seconds = timings(works, 2, device.type)
    return [
        Cost(
            evaluations[name],
            counts[name] / unit if unit else math.nan,
            seconds[name].seconds / TIMED,
        )
        for name in works
    ]


def quality_curve(
    candidate: Candidate,
    steps: Sequence[int],
    point_costs: Sequence[Cost],
    measurement: Measurement,
) -> list[CurvePoint]:
    """Fréchet distance of a model's first block of samples at several steps."""
    size = measurement.settings.block_size
    return [
        CurvePoint(k, cost, measurement.block_distances(candidate.features(0, size, steps=k))[0])
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


def _asymmetry(model: SavedModel, held_out: Source, device: torch.device) -> float | None:
    points = min(16, ASYMMETRY_NUMBERS // math.prod(model.denoiser.shape))
    if not points:  # the whole Jacobian of one image would not fit into memory
        return None
    clean = held_out.clean(points)
    noise = keyed_normal(0, range(len(clean)), model.denoiser.shape, HELD_OUT)
    noisy = (clean + ASYMMETRY_SIGMA * noise).to(device)
    return jacobian_asymmetry(model.denoiser, noisy, ASYMMETRY_SIGMA)


def _nearest(samples: Tensor, train: Source, held_out: Source) -> Nearest:
    """To the nearest training image, of samples and of as many held-out images."""
    queries = torch.cat([samples, held_out.spread(len(samples)).clean()]).flatten(1)
    found = nearest_neighbours(queries, train, 1).distance[:, 0] / queries.shape[1] ** 0.5
    return Nearest(*(float(part.median()) for part in found.tensor_split([len(samples)])))


def _bits(model: SavedModel, held_out: Source, device: torch.device) -> float | None:
    """Of held-out images under noise σ_min, by the energy; ``None`` if its constant is not set."""
    energy = model.denoiser.energy
    if energy is None or not energy.normalised:
        return None
    clean = held_out.clean(LIKELIHOODS)
    noise = keyed_normal(0, range(len(clean)), energy.shape, HELD_OUT)
    low = energy.require_noise().sigma_min
    with torch.no_grad():
        nats = energy((clean + low * noise).to(device), low)
    return float(bits_per_dim(nats, energy.dim, model.normalization).mean())
