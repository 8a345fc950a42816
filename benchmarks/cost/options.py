"""What the commands that time these cases are asked: where, how often and which."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.cost.cases import CASES, QUICK_CASES, Case


def timing_parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """The options that all of them have."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--rounds", type=int, default=11, help="interleaved repetitions")
    parser.add_argument("--quick", action="store_true", help="tiny networks, to test the command")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what is printed")
    return parser


def machine(args: argparse.Namespace) -> str:
    """Where it is timed, in words; on so many threads from here on."""
    torch.set_num_threads(args.threads)
    if args.device != "cpu":
        return torch.cuda.get_device_name()
    return f"{args.threads} CPU thread(s)"


def chosen_cases(args: argparse.Namespace, names: Sequence[str] | None) -> list[Case]:
    """Those whose name has one of these in it, or all."""
    cases = QUICK_CASES if args.quick else CASES
    return [case for case in cases if not names or any(word in case.name for word in names)]
