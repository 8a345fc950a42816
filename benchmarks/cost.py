"""What an energy costs beside an unconstrained network: on the same backbone, or, for networks that
are energies by themselves, beside a plain one of about as many operations.

    python -m benchmarks.cost [--compile] [--quick] [--backbone NAME ...] [--json FILE]

Prints, for every backbone, ratios energy / baseline of a training step (forward, loss, backward,
clipping, AdamW) and of a denoiser call (eval mode, no_grad): time, operations and peak memory; then
sampling with trace and certificate against sampling without. All in one run, interleaved.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from energydiff.denoisers import build_denoiser
from energydiff.energies.base import Denoiser
from energydiff.evaluation.cost import Timing, Work, operations, peak_bytes, timings
from energydiff.files import write_json
from energydiff.potentials import (
    MLP,
    Backbone,
    EnergyTransformer,
    EnergyUNet,
    Network,
    ScalarNetwork,
    Transformer,
    UNet,
)
from energydiff.sampling import Euler, Heun, certify, karras_sigmas

SIGMA_DATA = 0.5
TRACE_TARGET = 1.55


@dataclass(frozen=True)
class Case:
    """A backbone at one size; targets are ratios to the baseline.

    Attributes:
        build: the baseline's network.
        sampled_images: batch in which sampling is measured too; 0 for not at all.
        energy: the energy's network; ½⟨u, F⟩ on the baseline's where there is none.
    """

    name: str
    build: Callable[[], Backbone]
    images: int
    denoise_target: float = 2.0
    train_target: float = 2.3
    sampled_images: int = 0
    energy: Callable[[], ScalarNetwork] | None = None


@dataclass(frozen=True)
class Row:
    """One measured ratio; ``reference`` is what ``contestant`` is divided by."""

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


CASES = [
    Case("mlp 8x8", lambda: MLP((1, 8, 8), width=256, depth=3), 64, sampled_images=64),
    Case(
        "transformer 8x8", lambda: Transformer((1, 8, 8), width=128, depth=4), 64, sampled_images=16
    ),
    Case("unet 8x8", lambda: UNet((1, 8, 8), 32, (1, 2), 1, (4,)), 64, 2.0, 2.3, 8),
    Case("mlp 28x28", lambda: MLP((1, 28, 28), width=512, depth=4), 128),
    Case(
        "transformer 28x28",
        lambda: Transformer((1, 28, 28), patch_size=4, width=128, depth=4),
        32,
    ),
    Case("unet 28x28", lambda: UNet((1, 28, 28), 32, (1, 2), 1, (7,)), 16, 2.0, 2.3),
    Case(
        "energy unet 28x28",
        lambda: UNet((1, 28, 28), 16, (1, 2, 2), 1, (7,)),
        64,
        1.10,
        1.10,
        energy=lambda: EnergyUNet((1, 28, 28), 16, (1, 2, 2), 2, (7,)),
    ),
    Case(
        "energy transformer 32x32",
        lambda: Transformer((1, 32, 32), width=64, depth=4),
        16,
        1.0,
        1.0,
        energy=lambda: EnergyTransformer((1, 32, 32), width=64),
    ),
]
QUICK_CASES = [
    Case("mlp 8x8", lambda: MLP((1, 8, 8), width=128, depth=2), 8, sampled_images=4),
    Case(
        "transformer 8x8",
        lambda: Transformer((1, 8, 8), width=32, depth=1, heads=2),
        8,
        sampled_images=4,
    ),
    Case("unet 8x8", lambda: UNet((1, 8, 8), 8, (1, 2), 1, (4,)), 4, 2.0, 2.3, 4),
    Case(
        "energy unet 8x8",
        lambda: UNet((1, 8, 8), 8, (1, 2), 1, (4,)),
        4,
        1.10,
        1.10,
        energy=lambda: EnergyUNet((1, 8, 8), 8, (1, 2), 2, (4,)),
    ),
]


def build(case: Case, parametrization: str, device: str, compile: bool = False) -> Denoiser:
    """A model with no layer left at zero, as if some training had happened."""
    torch.manual_seed(0)
    network: Network = case.build()
    if case.energy is not None and parametrization != "unconstrained":
        network, parametrization = case.energy(), "scalar"
    model = build_denoiser(network, SIGMA_DATA, parametrization, compile)
    return without_zeros(model).to(device)


def without_zeros(model: Denoiser) -> Denoiser:
    """The model with small random weights in the layers that begin at zero, in place."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


def training_step(model: Denoiser, clean: Tensor) -> Work:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    sigma = torch.rand(len(clean), device=clean.device) + 0.1
    noisy = clean + sigma.view(-1, 1, 1, 1) * torch.randn_like(clean)

    def work() -> None:
        loss = (model.denoise(noisy, sigma) - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return work


def denoiser_call(model: Denoiser, x: Tensor) -> Work:
    sigma = torch.rand(len(x), device=x.device) + 0.1

    def work() -> None:
        with torch.no_grad():
            model.denoise(x, sigma)

    return work


def cost_rows(case: Case, rounds: int, device: str, compile: bool) -> list[Row]:
    models = {
        "baseline": build(case, "unconstrained", device),
        "energy": build(case, "inner_product", device),
    }
    if compile:
        models["compiled baseline"] = build(case, "unconstrained", device, compile=True)
        models["compiled energy"] = build(case, "inner_product", device, compile=True)
    x = SIGMA_DATA * torch.randn(case.images, *models["energy"].shape, device=device)
    rows = []
    for quantity in ("training step", "denoiser call"):
        work: dict[str, Work] = {}
        for name, model in models.items():
            # A model that samples is as energydiff.load hands it out: in eval mode and frozen.
            model.train(quantity == "training step").requires_grad_(model.training)
            work[name] = training_step(model, x) if model.training else denoiser_call(model, x)
        eager = {name: work[name] for name in ("baseline", "energy")}
        counts = {name: operations(w) for name, w in eager.items()}
        memory = {name: peak_bytes(w, device) for name, w in eager.items()}
        times = timings(work, rounds, device)
        rows.append(
            _row(
                case,
                quantity,
                "energy",
                "baseline",
                times["energy"],
                counts["energy"] / counts["baseline"],
                memory["energy"] / memory["baseline"],
            )
        )
        if compile:
            compiled = times["compiled energy"]
            rows.append(_row(case, quantity, "compiled energy", "baseline", compiled))
            both = timings(
                {n: work[n] for n in ("compiled baseline", "compiled energy")}, rounds, device
            )
            rows.append(
                _row(
                    case,
                    quantity,
                    "compiled energy",
                    "compiled baseline",
                    both["compiled energy"],
                )
            )
    return rows


def sampling_rows(case: Case, rounds: int, device: str, steps: int) -> list[Row]:
    model = build(case, "inner_product", device).eval().requires_grad_(False)
    sigmas = karras_sigmas(steps=steps, sigma_min=0.02, sigma_max=10.0, rho=7.0)
    x = 10.0 * torch.randn(case.sampled_images, *model.shape, device=device)
    rows = []
    for sampler in (Euler(sigmas, final_denoise=True), Heun(sigmas, final_denoise=True)):
        work: dict[str, Work] = {
            "without": lambda s=sampler: s(model, x, trace=False),  # type: ignore[misc]
            "with": lambda s=sampler: certify(s(model, x).trace),  # type: ignore[misc]
        }
        ratio = operations(work["with"]) / operations(work["without"])
        timing = timings(work, rounds, device)["with"]
        name = f"{type(sampler).__name__}, {steps} steps"
        rows.append(_row(case, name, "trace and certificate", "neither", timing, ratio))
    return rows


def _row(
    case: Case,
    quantity: str,
    contestant: str,
    reference: str,
    timing: Timing,
    operations_ratio: float | None = None,
    memory_ratio: float | None = None,
) -> Row:
    return Row(
        case.name,
        quantity,
        contestant,
        reference,
        1e3 * timing.seconds,
        timing.ratio,
        timing.low,
        timing.high,
        operations_ratio,
        memory_ratio,
    )


def targets(cases: list[Case], rows: list[Row]) -> list[dict[str, object]]:
    """Every eager ratio that has a target, beside it."""
    by_name = {case.name: case for case in cases}
    result: list[dict[str, object]] = []
    for row in rows:
        case = by_name[row.case]
        limits = {"training step": case.train_target, "denoiser call": case.denoise_target}
        if row.contestant.startswith("compiled"):
            continue
        limit = limits.get(row.quantity, TRACE_TARGET)
        result.append(
            {"name": f"{row.case}: {row.quantity}", "value": row.time_ratio, "target": limit}
        )
    return result


def show(row: Row) -> None:
    extra = "".join(
        f"  {name} x{value:.2f}"
        for name, value in (("operations", row.operations_ratio), ("memory", row.memory_ratio))
        if value is not None
    )
    print(
        f"  {row.quantity:16s} {row.contestant} / {row.reference}: x{row.time_ratio:.2f}"
        f" ({row.low:.2f} to {row.high:.2f})  {row.milliseconds:.1f} ms{extra}",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--rounds", type=int, default=11, help="interleaved repetitions")
    parser.add_argument("--backbone", nargs="+", help="only cases whose name has one of these")
    parser.add_argument("--compile", action="store_true", help="add the compiled path (minutes)")
    parser.add_argument("--quick", action="store_true", help="tiny networks, to test the command")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows and targets")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    rounds, steps = (2, 3) if args.quick else (args.rounds, 18)
    cases = [
        case
        for case in (QUICK_CASES if args.quick else CASES)
        if not args.backbone or any(word in case.name for word in args.backbone)
    ]
    where = (
        torch.cuda.get_device_name() if args.device != "cpu" else f"{args.threads} CPU thread(s)"
    )
    print(f"torch {torch.__version__}, {where}; median of {rounds} rounds (quartiles)")
    rows: list[Row] = []
    for case in cases:
        print(f"{case.name}, {case.images} images", flush=True)
        new = cost_rows(case, rounds, args.device, args.compile)
        if case.sampled_images:
            new += sampling_rows(case, rounds, args.device, steps)
        for row in new:
            show(row)
        rows += new
    checked = targets(cases, rows)
    print("targets")
    for target in checked:
        met = "met   " if target["value"] <= target["target"] else "MISSED"  # type: ignore[operator]
        print(f"  {met} {target['name']}: {target['value']:.2f}, at most {target['target']}")
    if args.json:
        write_json(args.json, {"rows": [asdict(row) for row in rows], "targets": checked})


if __name__ == "__main__":
    main()
