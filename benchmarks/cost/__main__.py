"""What an energy costs beside an unconstrained network, and beside the same energy by autograd.

    python -m benchmarks.cost [--compile] [--quick] [--backbone NAME ...] [--json FILE]

Prints ratios of a training step (forward, loss, backward, clipping, AdamW) and of a denoiser call
(eval mode, no_grad): time, operations and peak memory, energy / unconstrained network, on the same
backbone or, for networks that are energies by themselves, of about as many operations; some also
against the same energy as plain autograd and torchebm differentiate it. Then sampling with trace
and certificate against sampling without. All of a case in one run, interleaved.
"""

from dataclasses import asdict
from importlib.util import find_spec

import torch
from rich.console import Console

from benchmarks.cost.options import chosen_cases, machine, timing_parser
from benchmarks.cost.peers import MISSING
from benchmarks.cost.rows import Row, cost_rows, sampling_rows
from benchmarks.cost.table import line, peers_table, targets
from energydiff.files import write_json


def main(arguments: list[str] | None = None) -> None:
    parser = timing_parser("python -m benchmarks.cost", __doc__)
    parser.add_argument("--backbone", nargs="+", help="only cases whose name has one of these")
    parser.add_argument("--compile", action="store_true", help="add the compiled path (minutes)")
    args = parser.parse_args(arguments)
    where = machine(args)
    rounds, steps = (2, 3) if args.quick else (args.rounds, 18)
    cases = chosen_cases(args, args.backbone)
    print(f"torch {torch.__version__}, {where}; median of {rounds} rounds (quartiles)")
    if not find_spec("torchebm"):
        print(MISSING)
    rows: list[Row] = []
    for case in cases:
        print(f"{case.name}, {case.images} images", flush=True)
        new = cost_rows(case, rounds, args.device, args.compile)
        if case.sampled_images:
            new += sampling_rows(case, rounds, args.device, steps)
        for row in new:
            print(line(row), flush=True)
        rows += new
    Console().print(peers_table(rows))
    checked = targets(cases, rows)
    print("targets")
    for target in checked:
        met = "met   " if target["value"] <= target["target"] else "MISSED"  # type: ignore[operator]
        print(f"  {met} {target['name']}: {target['value']:.2f}, at most {target['target']}")
    if args.json:
        write_json(args.json, {"rows": [asdict(row) for row in rows], "targets": checked})


if __name__ == "__main__":
    main()
