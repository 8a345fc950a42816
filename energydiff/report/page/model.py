"""A model as the page shows it: what it is, how it was trained, and a few samples of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from energydiff.report.page.run import Series, read_metrics, read_training
from energydiff.sampling import Certificate, Heun, Sampler, Trace, certify, karras_sigmas
from energydiff.sampling.run import Point
from energydiff.saving import SavedModel, open_model


@dataclass(frozen=True)
class PageModel:
    """One column of the page.

    Attributes:
        name: for headings. ``path``: where the model lies.
        model: as :func:`energydiff.saving.open_model` returns it.
        images_seen: in training; ``None`` where no run says so.
        metrics: what training logged, by name pairs of images seen and value.
        samples: (N, \\*shape), model coordinates; sample i of every model starts from one noise.
        trajectories: D(x_k, σ_k) along the way to each sample, (points, N, \\*shape).
        trace: the record of the same samples; ``None`` for a baseline.
        certificate: of ``trace``.
        sigmas: noise levels of ``trajectories``, (points,).
        versions: of the packages that trained the model.
    """

    name: str
    path: str
    model: SavedModel
    images_seen: int | None
    metrics: dict[str, Series]
    samples: Tensor
    trajectories: Tensor
    trace: Trace | None
    certificate: Certificate | None
    sigmas: Tensor
    versions: dict[str, str] = field(default_factory=dict)


def page_model(
    path: str | Path,
    *,
    name: str | None = None,
    sampler: Sampler | None = None,
    seeds: Iterable[int] = range(16),
) -> PageModel:
    """Open a run folder, a checkpoint or an export and sample it for the page.

    Args:
        path: of the model.
        name: for headings; the last part of ``path`` by default.
        sampler: Heun in 18 steps over the model's own noise levels and a final denoising by
            default.
        seeds: of the samples, the same for all models of a page.

    Raises:
        UserError: there is no model at ``path``, or its metrics cannot be read.
    """
    path = Path(path)
    model = open_model(path)
    images_seen, versions = read_training(path)
    if sampler is None:
        sampler = Heun(karras_sigmas(18, model.sigma_min, model.sigma_max), final_denoise=True)
    denoised: list[Tensor] = []
    sigmas: list[float] = []

    def watch(_: int, point: Point) -> None:
        denoised.append((point.x - point.residual).cpu())
        sigmas.append(point.sigma)

    result = sampler(model.denoiser, seeds=seeds, on_step=watch)
    return PageModel(
        name=name or path.resolve().name,
        path=str(path),
        model=model,
        images_seen=images_seen,
        metrics=read_metrics(path),
        samples=result.samples.cpu(),
        trajectories=torch.stack(denoised),
        trace=result.trace,
        certificate=None if result.trace is None else certify(result.trace),
        sigmas=torch.tensor(sigmas),
        versions=versions,
    )
