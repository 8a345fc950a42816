"""What compiling brings: networks × objectives, each beside the same training step run eagerly.

    python -m benchmarks.compile [--quick] [--network NAME ...] [--bf16] [--json FILE]

Prints, for each, the seconds that the first compiled step took; how far its loss and its gradient
are from the eager ones; the time of a step (forward, loss, backward, AdamW), compiled / eager; and
how often more was compiled for further batches at other noise levels. It runs on a GPU if there is
one; give a time limit of minutes per line on a CPU.
"""

import argparse
import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from benchmarks.cost.cases import SIGMA_DATA, Case, build
from benchmarks.cost.options import chosen_cases, machine, timing_parser
from energydiff.diffusion import (
    DenoisingScoreMatching,
    DualScoreMatching,
    EquilibriumMatching,
    NoisyBatch,
    Objective,
)
from energydiff.energies import Denoiser
from energydiff.errors import UserError
from energydiff.evaluation.cost import timings
from energydiff.files import write_json

BATCHES = 4  # that nothing more may be compiled for


@dataclass(frozen=True)
class Row:
    """One network and objective; ``failure`` is the sentence of a compiler that failed."""

    case: str
    parametrization: str
    objective: str
    seconds: float = 0.0
    loss_error: float = 0.0
    gradient_error: float = 0.0
    recompilations: int = 0
    eager_milliseconds: float = 0.0
    time_ratio: float = 0.0
    low: float = 0.0
    high: float = 0.0
    failure: str = ""


def pairs(case: Case) -> Iterator[tuple[str, Objective]]:
    """Parametrizations of a case with the objectives that train them."""
    yield "unconstrained", DenoisingScoreMatching()
    yield case.parametrization, DenoisingScoreMatching()
    yield case.parametrization, DualScoreMatching()
    if case.energy is None:
        yield "coercive", EquilibriumMatching()


def measure(
    case: Case, parametrization: str, objective: Objective, args: argparse.Namespace
) -> Row:
    torch._dynamo.reset()
    eager = build(case, parametrization, args.device)
    compiled = copy.deepcopy(eager)
    compiled.compiler = args.backend
    batches = [make_batch(case, eager, seed) for seed in range(1 + BATCHES)]
    loss_of = partial(mean_loss, objective, bf16=args.bf16)
    row = partial(Row, case.name, parametrization, type(objective).__name__)

    start = time.perf_counter()
    try:
        loss, gradient = loss_and_gradient(compiled, loss_of(compiled, batches[0]))
    except UserError as error:
        return row(failure=str(error))
    seconds = time.perf_counter() - start
    expected, expected_gradient = loss_and_gradient(eager, loss_of(eager, batches[0]))
    versions = counters["stats"]["unique_graphs"]
    for batch in batches[1:]:
        loss_of(compiled, batch).backward()
    recompilations = counters["stats"]["unique_graphs"] - versions

    def step(model: Denoiser, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss_of(model, batches[0]).backward()
        optimizer.step()

    work = {
        name: partial(step, model, torch.optim.AdamW(model.parameters(), lr=1e-4))
        for name, model in (("eager", eager), ("compiled", compiled))
    }
    times = timings(work, args.rounds, args.device)
    ratio = times["compiled"].over(times["eager"])
    return row(
        seconds,
        abs(loss - expected) / abs(expected),
        float((gradient - expected_gradient).norm() / expected_gradient.norm()),
        recompilations,
        1e3 * times["eager"].seconds,
        ratio.median,
        ratio.low,
        ratio.high,
    )


def make_batch(case: Case, model: Denoiser, seed: int) -> NoisyBatch:
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    normal = torch.randn(2, case.images, *model.shape, generator=generator).to(device)
    sigma = (torch.rand(case.images, generator=generator) + 0.1).to(device)
    return NoisyBatch(SIGMA_DATA * normal[0], sigma, normal[1], SIGMA_DATA)


def mean_loss(objective: Objective, model: Denoiser, batch: NoisyBatch, bf16: bool) -> Tensor:
    with torch.autocast(batch.x0.device.type, torch.bfloat16, enabled=bf16):
        return torch.stack(list(objective(model, batch).values())).sum(0).mean()


def loss_and_gradient(model: Denoiser, loss: Tensor) -> tuple[float, Tensor]:
    loss.backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss.item(), torch.cat(grads)


def show(row: Row) -> None:
    what = f"  {row.parametrization:13s} {row.objective:23s}"
    if row.failure:
        print(f"{what} FAILED: {row.failure}", flush=True)
        return
    print(
        f"{what} compiled in {row.seconds:.0f} s, loss off by {row.loss_error:.0e}, gradient by"
        f" {row.gradient_error:.0e}; step x{row.time_ratio:.2f} ({row.low:.2f} to {row.high:.2f})"
        f" of {row.eager_milliseconds:.1f} ms; {row.recompilations} recompilations",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = timing_parser("python -m benchmarks.compile", __doc__)
    parser.add_argument("--network", nargs="+", help="only cases whose name has one of these")
    parser.add_argument(
        "--objective", nargs="+", help="only objectives whose name has one of these"
    )
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--bf16", action="store_true", help="train under bfloat16 autocast")
    args = parser.parse_args(arguments)
    where = machine(args)
    print(f"torch {torch.__version__}, {args.backend}, {where}; median of {args.rounds} rounds")
    rows = []
    for case in chosen_cases(args, args.network):
        print(f"{case.name}, {case.images} images", flush=True)
        for parametrization, objective in pairs(case):
            name = type(objective).__name__
            if args.objective and not any(word in name for word in args.objective):
                continue
            rows.append(measure(case, parametrization, objective, args))
            show(rows[-1])
    if args.json:
        write_json(args.json, {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
