"""Measured ratios of one case, all contestants in turn within one run."""

from dataclasses import dataclass

import torch

from benchmarks.cost.cases import SIGMA_DATA, Case, build
from benchmarks.cost.peers import PlainAutograd, peers_of
from benchmarks.cost.work import denoiser_call, training_step
from energydiff.denoisers import EnergyDenoiser
from energydiff.denoisers.description import UNCONSTRAINED
from energydiff.energies import Denoiser
from energydiff.evaluation.cost import Work, operations, peak_bytes, timings
from energydiff.sampling import Euler, Heun, certify, karras_sigmas

Model = Denoiser | PlainAutograd

# What is divided by what, where both are there.
RATIOS = (
    ("energy", "baseline"),
    ("compiled energy", "baseline"),
    ("compiled energy", "compiled baseline"),
    ("energy", "plain autograd"),
    ("energy", "torchebm"),
)


@dataclass(frozen=True)
class Row:
    """One measured ratio; ``reference`` is what ``contestant`` is divided by.

    Attributes:
        milliseconds: of the contestant. ``mebibytes``: its peak, ``None`` where it is not measured.
        time_ratio: the median over rounds; ``low`` and ``high`` are its quartiles.
    """

    case: str
    quantity: str
    contestant: str
    reference: str
    milliseconds: float
    time_ratio: float
    low: float
    high: float
    operations_ratio: float | None = None
    memory_ratio: float | None = None
    mebibytes: float | None = None


def cost_rows(case: Case, rounds: int, device: str, compile: bool) -> list[Row]:
    """A training step and a denoiser call of the energy beside all that it is measured against."""
    energy = build(case, case.parametrization, device)
    models = _contestants(case, energy, device, compile)
    x = SIGMA_DATA * torch.randn(case.images, *energy.shape, device=device)
    return [
        row
        for quantity in ("training step", "denoiser call")
        for row in _ratios(case, quantity, _work(models, quantity, x), rounds, device)
    ]


def sampling_rows(case: Case, rounds: int, device: str, steps: int) -> list[Row]:
    """Sampling with trace and certificate against sampling without."""
    model = build(case, case.parametrization, device).eval().requires_grad_(False)
    sigmas = karras_sigmas(steps=steps, sigma_min=0.02, sigma_max=10.0, rho=7.0)
    x = 10.0 * torch.randn(case.sampled_images, *model.shape, device=device)
    rows = []
    for sampler in (Euler(sigmas, final_denoise=True), Heun(sigmas, final_denoise=True)):
        work: dict[str, Work] = {
            "neither": lambda s=sampler: s(model, x, trace=False),  # type: ignore[misc]
            "trace and certificate": lambda s=sampler: certify(s(model, x).trace),  # type: ignore[misc]
        }
        taken = timings(work, rounds, device)
        plain, certified = taken["neither"], taken["trace and certificate"]
        ratio = certified.over(plain)
        rows.append(
            Row(
                case.name,
                f"{type(sampler).__name__}, {steps} steps",
                "trace and certificate",
                "neither",
                1e3 * certified.seconds,
                ratio.median,
                ratio.low,
                ratio.high,
                operations(work["trace and certificate"]) / operations(work["neither"]),
            )
        )
    return rows


def _contestants(case: Case, energy: Denoiser, device: str, compile: bool) -> dict[str, Model]:
    """The energy, its baseline and whatever else it is measured against."""
    baseline = build(case, UNCONSTRAINED, device)
    models: dict[str, Model] = {"baseline": baseline, "energy": energy}
    if compile:
        models["compiled baseline"] = build(case, UNCONSTRAINED, device, compile=True)
        models["compiled energy"] = build(case, case.parametrization, device, compile=True)
    if case.peers and isinstance(energy, EnergyDenoiser):
        models |= peers_of(energy)
    return models


def _work(models: dict[str, Model], quantity: str, x: torch.Tensor) -> dict[str, Work]:
    work: dict[str, Work] = {}
    for name, model in models.items():
        # A model that samples is as energydiff.load hands it out: in eval mode and frozen.
        model.train(quantity == "training step").requires_grad_(model.training)
        work[name] = training_step(model, x) if model.training else denoiser_call(model, x)
    return work


def _ratios(
    case: Case, quantity: str, work: dict[str, Work], rounds: int, device: str
) -> list[Row]:
    # Neither count sees into what is compiled.
    eager = {name: one for name, one in work.items() if not name.startswith("compiled")}
    counts = {name: operations(one) for name, one in eager.items()}
    memory = {name: peak_bytes(one, device) for name, one in eager.items()}
    taken = timings(work, rounds, device)
    rows = []
    for contestant, reference in RATIOS:
        if not {contestant, reference} <= work.keys():
            continue
        ratio = taken[contestant].over(taken[reference])
        counted = {contestant, reference} <= eager.keys()
        rows.append(
            Row(
                case.name,
                quantity,
                contestant,
                reference,
                1e3 * taken[contestant].seconds,
                ratio.median,
                ratio.low,
                ratio.high,
                counts[contestant] / counts[reference] if counted else None,
                memory[contestant] / memory[reference] if counted else None,
                memory[contestant] / 2**20 if counted else None,
            )
        )
    return rows
