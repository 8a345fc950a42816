"""What an energy brings to a Metropolis chain, beside a field without one: products of classes.

Chains start where Heun's method on the product ends. Of each chain: how many proposals it takes,
what one costs, and, of a product that is known, how far it comes out. Of each field: the line
integral of the score round triangles of three draws, which is 0 for a gradient. Without an energy a
decision depends on the way, by as much as that.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from energydiff.denoisers import build_denoiser
from energydiff.diffusion import DualScoreMatching, NoisyBatch, denoising_loss
from energydiff.energies import Denoiser, GaussianMixture, ScoreSum, Sum
from energydiff.potentials import MLP
from energydiff.progress import progress
from energydiff.sampling import MALA, Heun, karras_sigmas, split_rhat

SIGMA, DRAWS = 0.2, 5000  # in the plane
LINE = 5  # points of a line integral, as in the source
ROUND = 65  # points of each side of a triangle

# Two classes in the plane, whose product has three modes of unequal shares.
FIRST = GaussianMixture(
    torch.tensor([[-1.0, 0.0], [0.0, 0.6], [1.0, 0.0]]), 0.25, torch.tensor([0.5, 0.3, 0.2])
)
SECOND = GaussianMixture(
    torch.tensor([[-1.0, 0.3], [0.1, 0.3], [1.1, -0.3]]), 0.3, torch.tensor([0.2, 0.3, 0.5])
)


@dataclass(frozen=True)
class Chain:
    """One way of deciding, on one field.

    Attributes:
        accepted: share of proposals.
        calls: function evaluations per accepted proposal.
        loop: median and largest |∮⟨s, dx⟩| round triangles of draws, nats.
        rhat: largest split R̂ of a coordinate, over the second half.
        samples: after all moves, (B, \\*shape).
        distance: energy distance of these to exact draws, where there are any.
    """

    accepted: float
    calls: float
    loop: tuple[float, float]
    rhat: float
    samples: Tensor
    distance: float | None = None


def fields_in_the_plane(steps: int, moves: int) -> dict[str, Chain]:
    """Of the exact energy, a trained one and a trained baseline."""
    energy, baseline = (trained(kind, steps) for kind in ("sum", "unconstrained"))
    ways: dict[str, tuple[Denoiser, int]] = {
        "exact energy": (Sum([FIRST, SECOND]), 0),
        "energy": (product(energy, (0, 1)), 0),
        f"energy, line of {LINE}": (product(energy, (0, 1)), LINE),
        "baseline, line of 2": (product(baseline, (0, 1)), 2),
        f"baseline, line of {LINE}": (product(baseline, (0, 1)), LINE),
    }
    found = {}
    for name, (field, line) in ways.items():
        one = chain(field, line, SIGMA, moves, step=0.5, count=900)
        found[name] = replace(one, distance=distance(one.samples))
    return found


def chain(field: Denoiser, line: int, sigma: float, moves: int, step: float, count: int) -> Chain:
    """MALA at fixed noise from where Heun's method ends."""
    start = Heun(karras_sigmas(18, sigma, 10.0))(field, seeds=range(count), trace=False).samples
    points: list[Tensor] = []
    sampler = MALA(sigma, updates=moves, step_size=step, line=line)
    result = sampler(
        field, start, seeds=range(count), trace=False, on_step=lambda _, here: points.append(here.x)
    )
    path = torch.stack([*points, result.samples])
    accepted = (path.diff(dim=0) != 0).flatten(2).any(2).double().mean().item()
    thirds = result.samples[: count // 3 * 3].split(count // 3)
    return Chain(
        accepted,
        sampler.evaluations / max(accepted, 1e-12),
        loop(field, sigma, *thirds),
        float(split_rhat(path[moves // 2 :].flatten(2)).max()),
        result.samples,
    )


def loop(field: Denoiser, sigma: float, a: Tensor, b: Tensor, c: Tensor) -> tuple[float, float]:
    """Median and largest |∮⟨s, dx⟩| round the triangles abc, nats."""
    around = torch.zeros(len(a), dtype=torch.float64)
    for start, end in ((a, b), (b, c), (c, a)):
        along = end - start
        scores = torch.stack([_score(field, start + t * along, sigma) for t in _shares()])
        mean = torch.trapezoid(scores.double(), dim=0) / (ROUND - 1)
        around += (mean * along).flatten(1).sum(1)
    return float(around.abs().median()), float(around.abs().max())


def _shares() -> list[float]:
    return torch.linspace(0, 1, ROUND).tolist()


def _score(field: Denoiser, x: Tensor, sigma: float) -> Tensor:
    return (field.denoise(x, sigma) - x) / sigma**2


def trained(parametrization: str, steps: int) -> Denoiser:
    """A small network of both classes; an energy dually, a baseline by denoising alone."""
    torch.manual_seed(0)
    network = MLP((2,), width=128, depth=3, num_classes=2)
    model = build_denoiser(network, 0.8, parametrization).train()
    objective = DualScoreMatching()
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(1)
    with progress(f"Training ({parametrization})", steps) as tell:
        for step in range(steps):
            label = torch.randint(2, (512,), generator=generator)
            first, second = (_drawn(mixture, generator) for mixture in (FIRST, SECOND))
            x0 = torch.where(label[:, None] == 0, first, second)
            sigma = (1.5 * torch.randn(512, generator=generator) - 1.2).exp()
            noise = torch.randn(512, 2, generator=generator)
            batch = NoisyBatch(x0, sigma, noise, 0.8, label)
            loss = (
                sum(objective(model, batch).values())
                if model.energy is not None
                else denoising_loss(model, batch)
            )
            optimiser.zero_grad()
            loss.mean().backward()  # type: ignore[union-attr]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            tell(step + 1)
    return model.eval().requires_grad_(False)


def _drawn(mixture: GaussianMixture, generator: torch.Generator) -> Tensor:
    which = torch.multinomial(mixture.weights, 512, replacement=True, generator=generator)
    return mixture.means[which] + mixture.std[which] * torch.randn(512, 2, generator=generator)


def product(model: Denoiser, classes: tuple[int, int]) -> Denoiser:
    """The product of two classes of a model: an energy where it has one, else a field."""
    if model.energy is not None:
        return Sum([model, model], labels=classes)
    return ScoreSum([model, model], [1.0, 1.0], classes)


def distance(x: Tensor) -> float:
    """Energy distance 2E‖X − Y‖ − E‖X − X'‖ − E‖Y − Y'‖ to exact draws Y of the known product."""
    axis = torch.linspace(-3, 3, 601)
    grid = torch.cartesian_prod(axis, axis)
    mass = (-Sum([FIRST, SECOND])(grid, SIGMA)).softmax(0)
    generator = torch.Generator().manual_seed(0)
    y = grid[torch.multinomial(mass, DRAWS, replacement=True, generator=generator)]
    y = y + 0.01 * (torch.rand(y.shape, generator=generator) - 0.5)  # within a cell of the grid
    within = [torch.cdist(z, z).sum() / (len(z) * (len(z) - 1)) for z in (x, y)]
    return float(2 * torch.cdist(x, y).mean() - sum(within))
