"""Sample a model: ``energydiff sample runs/digits/energy_unet --num_samples 64 --out out/``."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from torch import Tensor

import energydiff
from energydiff.cli.parser import function_parser
from energydiff.denoisers import STEP_SIZE, BlindEnergy
from energydiff.drawing import Drawing, draw_batches
from energydiff.energies import Denoiser, Guidance
from energydiff.errors import UserError
from energydiff.random import RULE
from energydiff.ranks import is_first_rank
from energydiff.report.sample_set import SampleSet
from energydiff.report.sampling import OutsideRange, Sampled, write_sampling
from energydiff.sampling import (
    Certificate,
    GradientDescent,
    Sampler,
    geometric_sigmas,
    given_sigmas,
    karras_sigmas,
    linear_sigmas,
    make_sampler,
    sampler_class,
)
from energydiff.saving import SavedModel

Grid = Literal["karras", "geometric", "linear"]
SHOWN_CLASSES = 20  # in a message
GRIDS = {"karras": karras_sigmas, "geometric": geometric_sigmas, "linear": linear_sigmas}


def sample(
    model: Path,
    num_samples: int = 64,
    sampler: str | None = None,
    sampler_options: dict[str, bool | int | float | str] | None = None,
    steps: int | None = None,
    grid: Grid | None = None,
    rho: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    sigmas: str | None = None,
    step_size: float | None = None,
    seed: int = 0,
    label: str | None = None,
    guidance: float | None = None,
    batch_size: int = 64,
    devices: int = 1,
    accelerator: str = "auto",
    trace: bool = True,
    out: Path = Path("out"),
    overwrite: bool = False,
    require_descent: bool = False,
) -> Certificate | None:
    """Draw samples from a model and check that its Lyapunov function fell at every step.

    Args:
        model: A run folder, a checkpoint or an exported model.
        num_samples: How many; sample i depends on (seed, i) alone.
        sampler: A name from docs/sample.md, or the import path of a class of your own; heun by
            default, armijo for a noise-blind energy.
        sampler_options: Of the sampler, each by its name: --sampler_options.updates 20
        steps: Steps down the noise grid, 18 by default, and a final denoising; descent on a
            noise-blind energy takes at most this many, 100 by default.
        grid: Spacing of the noise levels, karras by default.
        rho: Of the karras grid, 7 by default; the larger, the shorter the steps at low noise.
        sigma_min: Lowest noise; the model's own by default.
        sigma_max: Highest noise; the model's own by default.
        sigmas: All noise levels instead of a grid, falling and separated by commas: 10,3,1,0.3,0.1
        step_size: Short for --sampler_options.step_size; 0.02 by default for a descent, which
            Armijo's rule may shorten.
        seed: Of the whole set.
        label: Class for a model with labels: its name, or its index where classes have no names;
            all takes the classes in turn, a column of the grid for each.
        guidance: Weight w of classifier-free guidance, (1+w) E(x, label) − w E(x); needs a label.
        batch_size: Samples at a time on each device.
        devices: How many devices share the work.
        accelerator: As in Lightning: auto, cpu, gpu, mps.
        trace: Record the Lyapunov function (about half a step more for Euler, a quarter for Heun).
        out: Folder for the images, arrays, plots and the certificate; the same command goes on
            with what is there.
        overwrite: Replace samples of another model or other settings in the folder.
        require_descent: Refuse what cannot be certified before sampling it.
    """
    saved = _opened(model, label, guidance)
    classes = () if label is None else class_indices(saved, label)
    levels = Levels(grid, rho, sigma_min, sigma_max, sigmas, steps)
    options = ({} if step_size is None else {"step_size": step_size}) | (sampler_options or {})
    name = sampler or ("armijo" if isinstance(saved.denoiser, BlindEnergy) else "heun")
    method = _method(saved, name, levels, options)
    if require_descent:
        _require_certifiable(saved.denoiser, method, trace)
    settings = {
        "model": str(model),
        "sampler": name,
        "sampler_options": options,
        "seed": seed,
        "noise": RULE,
        "label": label,
        "class_index": classes[0] if len(classes) == 1 else list(classes) or None,
        "guidance": guidance,
    }
    settings |= _described(method, levels)
    record = trace and saved.denoiser.energy is not None
    samples = SampleSet(out, saved, settings, num_samples, record)
    if is_first_rank():
        samples.require_room(overwrite)
    how = Drawing(seed, classes, batch_size, devices, accelerator)
    start = time.perf_counter()
    draw_batches(
        *(saved.denoiser, method, range(num_samples), how, samples.take),
        skip=samples.begin,
        trace=trace,
    )
    if not is_first_rank():
        return None
    in_turn = len(classes) > 1 and method.population == 1
    sampled = write_sampling(samples, len(classes) if in_turn else None, method.diagnose)
    Console().print(_table(sampled, num_samples, time.perf_counter() - start, out, label))
    none = "There is no certificate: nothing was recorded, or the model has no energy."
    print(sampled.certificate or none)
    if sampled.diagnosis is not None:
        print(sampled.diagnosis)
    warn_of_range(sampled.outside_range, num_samples)
    return sampled.certificate


@dataclass(frozen=True)
class Levels:
    """The noise levels that were asked for; ``None`` is the default."""

    grid: Grid | None
    rho: float | None
    sigma_min: float | None
    sigma_max: float | None
    sigmas: str | None
    steps: int | None

    def beside(self, allowed: str) -> str:
        """What was given beside the one option that may be."""
        given = [name for name, value in vars(self).items() if value is not None]
        return " and ".join(f"--{name}" for name in given if name != allowed)

    @property
    def spacing(self) -> str:
        return "own" if self.sigmas else self.grid or "karras"

    def of(self, saved: SavedModel) -> Tensor:
        """The noise grid, between the model's own levels where no others are given."""
        if self.sigmas is not None:
            return self._own(self.sigmas)
        low, high = self.sigma_min, self.sigma_max
        if low is None or high is None:
            own = saved.denoiser.require_noise()
            low = own.sigma_min if low is None else low
            high = own.sigma_max if high is None else high
        steps, grid = 18 if self.steps is None else self.steps, self.grid or "karras"
        if self.rho is None:
            return GRIDS[grid](steps, low, high)
        if grid != "karras":
            raise UserError(f"--rho shapes the karras grid only: leave it out with --grid {grid}.")
        return karras_sigmas(steps, low, high, self.rho)

    def _own(self, sigmas: str) -> Tensor:
        if others := self.beside("sigmas"):
            raise UserError(f"--sigmas is the whole noise grid: leave out {others}.")
        try:
            return given_sigmas([float(level) for level in sigmas.strip("[]").split(",")])
        except ValueError:
            raise UserError(
                f"--sigmas must be numbers separated by commas, as in 10,3,1,0.3,0.1; got {sigmas}."
            ) from None


def _opened(path: Path, label: str | None, guidance: float | None) -> SavedModel:
    """The model at ``path``, guided if so asked."""
    saved = energydiff.open_model(path)
    if guidance is None:
        return saved
    saved = replace(saved, denoiser=Guidance(saved.denoiser, guidance))
    if label is None:
        raise UserError("--guidance needs a --label to guide towards.")
    return saved


def _method(saved: SavedModel, name: str, levels: Levels, options: dict[str, Any]) -> Sampler:
    """The sampler; a descent goes to the resting norm that training chose."""
    if not issubclass(sampler_class(name), GradientDescent):
        return make_sampler(name, levels.of(saved), **options)
    model = saved.denoiser
    if not isinstance(model, BlindEnergy):
        raise UserError(f"--sampler {name} descends a noise-blind energy; this model has noise.")
    if given := levels.beside("steps"):
        raise UserError(f"--sampler {name} knows no noise levels: leave out {given}.")
    own = {
        "steps": 100 if levels.steps is None else levels.steps,
        "step_size": STEP_SIZE,
        "tolerance": float(model.resting_norm),
    }
    return make_sampler(name, None, **own | options)


def _require_certifiable(model: Denoiser, method: Sampler, trace: bool) -> None:
    """``UserError`` where no certificate could hold."""
    model.require_energy()
    if not trace:
        raise UserError("--require_descent needs the record that --trace false switches off.")
    if method.stochastic:
        raise UserError(
            f"--require_descent cannot be met by {method.name}: its noise raises V, as it should."
        )


def _described(method: Sampler, levels: Levels) -> dict[str, Any]:
    """What a sampler does, for a record of it."""
    sigmas = method.sigmas.tolist()
    settings = {
        "steps": len(sigmas) - 1,
        "grid": None if isinstance(method, GradientDescent) else levels.spacing,
        "sigma_min": sigmas[-1],
        "sigma_max": sigmas[0],
        "sigmas": sigmas,
        "final_denoise": method.final_denoise,
    }
    if isinstance(method, GradientDescent):
        settings |= {"step_size": method.step_size, "resting_norm": method.tolerance}
    return settings


def class_indices(saved: SavedModel, label: str) -> tuple[int, ...]:
    """The class of a name, or of an index where classes have no names, or ``all`` of them.

    Raises:
        UserError: there is no such class. An index beyond them the drawing refuses.
    """
    if label in saved.classes:
        return (saved.classes.index(label),)
    if label == "all" and saved.denoiser.num_classes:
        return tuple(range(saved.denoiser.num_classes))
    if saved.classes:
        told = ", ".join(saved.classes[:SHOWN_CLASSES])
        more = len(saved.classes) - SHOWN_CLASSES
        others = f" and {more:,} more" if more > 0 else ""
        raise UserError(
            f"--label {label} is no class of this model: choose {told}{others}, or all."
        )
    try:
        return (int(label),)
    except ValueError:
        raise UserError(
            f"--label {label}: the classes of this model have no names, give an index from 0 to"
            f" {saved.denoiser.num_classes - 1}."
            if saved.denoiser.num_classes
            else f"--label {label}: this model has no classes, leave --label out."
        ) from None


def warn_of_range(outside: OutsideRange, count: int) -> None:
    """A warning that counts the samples, of so many, far outside the data's range."""
    if outside.samples:
        warnings.warn(
            f"{outside.samples} of the {count} samples leave the data's range by a factor of up to"
            f" {outside.factor:.3g}: they are not like data, whatever the certificate says; take"
            " more steps.",
            stacklevel=3,
        )


def _table(sampled: Sampled, count: int, seconds: float, out: Path, label: str | None) -> Table:
    table = Table(show_header=False, title=f"{count} samples in {out}")
    if label is not None:
        table.add_row("class", label)
    table.add_row("function evaluations per sample", str(sampled.nfe))
    table.add_row("energy evaluations for the record", str(sampled.energy_evaluations))
    table.add_row("seconds", f"{seconds:.1f}")
    return table


def main(arguments: Sequence[str]) -> int:
    """0; 3 if the certificate was required and fails."""
    flags = {"overwrite", "require_descent"}
    parser = function_parser(sample, "energydiff sample", {"num_samples", *flags}, "MODEL")
    parser.add_argument(
        "-n",
        "--num_samples",
        type=int,
        default=64,
        help="How many; sample i depends on (seed, i) alone.",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="Replace samples of another model or other settings in the folder.",
    )
    parser.add_argument(
        "--require_descent", action="store_true", help="Exit with code 3 unless V fell throughout."
    )
    given = parser.parse_args(arguments[1:])
    certificate = sample(**given.as_dict())
    if given.require_descent and certificate is not None and not certificate.holds:
        return 3
    return 0
