"""Sample a model: ``energydiff sample runs/digits/energy_unet --num_samples 64 --out out/``."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table
from torch import Tensor

import energydiff
from energydiff.denoisers import STEP_SIZE, BlindEnergy
from energydiff.drawing import Drawing, draw_samples, is_first_rank
from energydiff.energies import Denoiser, Guidance
from energydiff.errors import UserError
from energydiff.report import words
from energydiff.report.sampling import require_room, write_sampling
from energydiff.sampling import (
    HMC,
    MALA,
    Ancestral,
    Armijo,
    Certificate,
    Churn,
    DPMSolver2M,
    Euler,
    GradientDescent,
    GuardedEuler,
    GuardedHeun,
    Heun,
    Langevin,
    Nesterov,
    Sampler,
    SampleResult,
    geometric_sigmas,
    given_sigmas,
    karras_sigmas,
    linear_sigmas,
)

SAMPLERS: dict[str, type[Sampler]] = {
    "euler": Euler,
    "heun": Heun,
    "guarded_euler": GuardedEuler,
    "guarded_heun": GuardedHeun,
    "dpm_solver_2m": DPMSolver2M,
    "ancestral": Ancestral,
    "churn": Churn,
    "langevin": Langevin,
    "mala": MALA,
    "hmc": HMC,
}
DESCENTS: dict[str, type[GradientDescent]] = {
    "gradient_descent": GradientDescent,
    "nesterov": Nesterov,
    "armijo": Armijo,
}
Grid = Literal["karras", "geometric", "linear"]
GRIDS = {"karras": karras_sigmas, "geometric": geometric_sigmas, "linear": linear_sigmas}


def sample(
    model: Path,
    num_samples: int = 64,
    sampler: Literal[
        "heun",
        "euler",
        "guarded_heun",
        "guarded_euler",
        "dpm_solver_2m",
        "ancestral",
        "churn",
        "langevin",
        "mala",
        "hmc",
        "gradient_descent",
        "nesterov",
        "armijo",
    ]
    | None = None,
    steps: int | None = None,
    grid: Grid | None = None,
    rho: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    sigmas: str | None = None,
    step_size: float | None = None,
    seed: int = 0,
    label: int | None = None,
    guidance: float | None = None,
    batch_size: int = 64,
    devices: int = 1,
    accelerator: str = "auto",
    trace: bool = True,
    out: Path = Path("out"),
    require_descent: bool = False,
) -> Certificate | None:
    """Draw samples from a model and check that its Lyapunov function fell at every step.

    Args:
        model: A run folder, a checkpoint or an exported model.
        num_samples: How many; sample i depends on (seed, i) alone.
        sampler: See docs/sample.md; heun by default, armijo for a noise-blind energy.
        steps: Steps down the noise grid, 18 by default, and a final denoising; descent on a
            noise-blind energy takes at most this many, 100 by default.
        grid: Spacing of the noise levels, karras by default.
        rho: Of the karras grid, 7 by default; the larger, the shorter the steps at low noise.
        sigma_min: Lowest noise; the model's own by default.
        sigma_max: Highest noise; the model's own by default.
        sigmas: All noise levels instead of a grid, falling and separated by commas: 10,3,1,0.3,0.1
        step_size: Of a descent, which Armijo's rule may shorten; 0.02 by default.
        seed: Of the whole set.
        label: Class index for a model with labels.
        guidance: Weight w of classifier-free guidance, (1+w) E(x, label) − w E(x); needs a label.
        batch_size: Samples at a time on each device.
        devices: How many devices share the work.
        accelerator: As in Lightning: auto, cpu, gpu, mps.
        trace: Record the Lyapunov function (about half a step more for Euler, a quarter for Heun).
        out: Folder for the images, arrays, plots and the certificate.
        require_descent: Refuse what cannot be certified before sampling it.
    """
    saved = energydiff.open_model(model)
    if guidance is not None:
        saved = replace(saved, denoiser=Guidance(saved.denoiser, guidance))
        if label is None:
            raise UserError("--guidance needs a --label to guide towards.")
    sampler = sampler or ("armijo" if isinstance(saved.denoiser, BlindEnergy) else "heun")
    if require_descent:
        saved.denoiser.require_energy()
        if not trace:
            raise UserError("--require_descent needs the record that --trace false switches off.")
        if sampler in SAMPLERS and SAMPLERS[sampler].stochastic:
            raise UserError(
                f"--require_descent cannot be met by {sampler}: its noise raises V, as it should."
            )
    require_room(out, num_samples, record=trace and saved.denoiser.energy is not None)
    noise = {"grid": grid, "rho": rho, "sigma_min": sigma_min, "sigma_max": sigma_max}
    if sampler in DESCENTS:
        given = [f"--{name}" for name, v in (noise | {"sigmas": sigmas}).items() if v is not None]
        method: Sampler = _descent(saved.denoiser, sampler, steps, step_size, given)
    elif step_size is not None:
        raise UserError(f"--step_size is of a descent; {sampler} goes down a noise grid.")
    elif sigmas is None:
        low = saved.sigma_min if sigma_min is None else sigma_min
        high = saved.sigma_max if sigma_max is None else sigma_max
        levels = _spaced(18 if steps is None else steps, grid or "karras", rho, low, high)
        method = SAMPLERS[sampler](levels, final_denoise=True)
    else:
        given = [f"--{name}" for name, v in (noise | {"steps": steps}).items() if v is not None]
        method = SAMPLERS[sampler](_own(sigmas, given), final_denoise=True)
    how = Drawing(seed, label, batch_size, devices, accelerator)
    start = time.perf_counter()
    result = draw_samples(saved.denoiser, method, range(num_samples), how, trace=trace)
    if not is_first_rank():
        return None
    seconds = time.perf_counter() - start
    settings = {
        "model": str(model),
        "sampler": sampler,
        "steps": len(method.sigmas) - 1,
        "grid": None if sampler in DESCENTS else "own" if sigmas else grid or "karras",
        "sigma_min": method.sigmas[-1].item(),
        "sigma_max": method.sigmas[0].item(),
        "sigmas": method.sigmas.tolist(),
        "seed": seed,
        "label": label,
        "guidance": guidance,
        "final_denoise": method.final_denoise,
    }
    if isinstance(method, GradientDescent):
        settings |= {"step_size": method.step_size, "resting_norm": method.tolerance}
    certificate = write_sampling(result, saved, out, settings)
    Console().print(_table(result, certificate, seconds, out))
    return certificate


def _descent(
    model: Denoiser, name: str, steps: int | None, step_size: float | None, given: list[str]
) -> GradientDescent:
    """Descent of a noise-blind energy to the resting norm that training chose."""
    if not isinstance(model, BlindEnergy):
        raise UserError(f"--sampler {name} descends a noise-blind energy; this model has noise.")
    if given:
        raise UserError(f"--sampler {name} knows no noise levels: leave out {' and '.join(given)}.")
    length = STEP_SIZE if step_size is None else step_size
    return DESCENTS[name](100 if steps is None else steps, length, float(model.resting_norm))


def _spaced(steps: int, grid: Grid, rho: float | None, low: float, high: float) -> Tensor:
    if rho is None:
        return GRIDS[grid](steps, low, high)
    if grid != "karras":
        raise UserError(f"--rho shapes the karras grid only: leave it out with --grid {grid}.")
    return karras_sigmas(steps, low, high, rho)


def _own(sigmas: str, others: list[str]) -> Tensor:
    if others:
        raise UserError(f"--sigmas is the whole noise grid: leave out {' and '.join(others)}.")
    try:
        return given_sigmas([float(level) for level in sigmas.strip("[]").split(",")])
    except ValueError:
        raise UserError(
            f"--sigmas must be numbers separated by commas, as in 10,3,1,0.3,0.1; got {sigmas}."
        ) from None


def _table(
    result: SampleResult, certificate: Certificate | None, seconds: float, out: Path
) -> Table:
    table = Table(show_header=False, title=f"{len(result.samples)} samples in {out}")
    table.add_row("function evaluations per sample", str(result.nfe))
    table.add_row("energy evaluations for the record", str(result.energy_evaluations))
    table.add_row("seconds", f"{seconds:.1f}")
    if certificate is None:
        table.add_row("certificate", "none: nothing was recorded, or the model has no energy")
        return table
    record = certificate.as_dict()
    table.add_row("certificate", words.certificate(record))
    for name, text in words.counts(record):
        table.add_row(f"  {name}", text)
    return table


def main(arguments: Sequence[str]) -> int:
    """0; 3 if the certificate was required and fails."""
    parser = ArgumentParser(prog="energydiff sample", description=sample.__doc__)
    parser.add_function_arguments(
        sample, fail_untyped=True, as_positional=True, skip={"require_descent"}
    )
    parser.add_argument(
        "--require_descent", action="store_true", help="Exit with code 3 unless V fell throughout."
    )
    given = parser.parse_args(list(arguments[1:]))
    certificate = sample(**given.as_dict())
    if given.require_descent and certificate is not None and not certificate.holds:
        return 3
    return 0
