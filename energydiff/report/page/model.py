"""A model as the page shows it: what it is, how it was trained, and a few samples of it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from energydiff.evaluation import OpenedModel, Settings
from energydiff.evaluation.logged import Series, read_metrics
from energydiff.report.page.run import read_training
from energydiff.sampling import Certificate, Trace, certify
from energydiff.sampling.run import Point
from energydiff.saving import SavedModel


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
    model: OpenedModel,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    *,
    name: str | None = None,
    count: int = 16,
) -> PageModel:
    """Sample a model for the page.

    Args:
        settings: sampler, steps and seed; Heun in 18 steps and a final denoising by default.
        name: for headings; the last part of the model's path by default.
        count: how many samples; sample i depends on (seed, i) alone.

    Raises:
        UserError: its metrics cannot be read.
    """
    saved = model.saved
    images_seen, versions = read_training(model.path)
    denoised: list[Tensor] = []
    sigmas: list[float] = []

    def watch(_: int, point: Point) -> None:
        denoised.append((point.x - point.residual).cpu())
        sigmas.append(point.sigma)

    result = settings.drawing.draw(
        saved.denoiser, settings.sampler_of(saved), range(count), on_step=watch
    )
    return PageModel(
        name=name or model.name,
        path=str(model.path),
        model=saved,
        images_seen=images_seen,
        metrics=read_metrics(model.path),
        samples=result.samples.cpu(),
        trajectories=torch.stack(denoised),
        trace=result.trace,
        certificate=None if result.trace is None else certify(result.trace),
        sigmas=torch.tensor(sigmas),
        versions=versions,
    )
