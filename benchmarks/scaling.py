"""How training scales: one process beside two, and on paper what many devices would exchange.

    python -m benchmarks.scaling [--config FILE] [--images N] [--rounds N] [--json FILE]
    python -m benchmarks.scaling --paper [FILE[+FILE][:CxHxW] ...] [--devices N ...] [--json FILE]

The first trains a config in one process and in two, in turn, and divides. The second trains
nothing: it counts a configuration's weights and the operations of a step, and works out what is
exchanged.
"""

import argparse
import csv
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from energydiff.denoisers import build_denoiser
from energydiff.diffusion import DenoisingScoreMatching, NoisyBatch, Objective
from energydiff.errors import UserError, sentences
from energydiff.evaluation.cost import operations
from energydiff.files import write_json
from energydiff.plain_yaml import read_yaml
from energydiff.potentials import Network, ScalarNetwork
from energydiff.progress import progress
from energydiff.registry import build_recorded

CONFIG = "configs/digits/energy_transformer.yaml"
CONFIGS = (
    "configs/digits/energy_unet.yaml:1x8x8",
    "configs/digits/energy_transformer.yaml:1x8x8",
    "configs/fashion_mnist/energy_unet.yaml:1x28x28",
    "configs/folder/energy_unet.yaml",
)
DEVICES = (8, 64, 512)
ARMS = {"1": (1, "auto"), "2 ddp": (2, "ddp"), "2 fsdp2": (2, "fsdp2")}
BYTES = 4  # of a weight and its gradient, which stay float32
UNWATCHED = ("val_every_images", "monitor.every_images", "checkpoint_every_images")


@dataclass(frozen=True)
class Run:
    """What one training came to: images a second, and the loss of every step."""

    rate: float
    losses: list[float]


def train(config: str, devices: int, strategy: str, images: int, accelerator: str) -> Run:
    """A run of the command line in processes of its own, one thread each on a CPU."""
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "trainer.default_root_dir": folder,
            "trainer.accelerator": accelerator,
            "trainer.devices": devices,
            "trainer.strategy": strategy,
            "trainer.log_every_n_steps": 1,
            "trainer.enable_progress_bar": "false",
            "model.total_images": images,
            "finish.evaluations": 0,
            **dict.fromkeys(UNWATCHED, 0),
        }
        command = [sys.executable, "-m", "energydiff", "fit", "--config", config]
        command += [f"--{name}={value}" for name, value in options.items()]
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        if done.returncode:
            raise UserError(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1]}")
        (file,) = Path(folder).glob("metrics/*/metrics.csv")
        with file.open() as lines:
            rows = list(csv.DictReader(lines))
    rates = [float(row["images_per_second"]) for row in rows if row["images_per_second"]]
    return Run(rates[-1], [float(row["train/loss"]) for row in rows if row["train/loss"]])


def compare(config: str, images: int, rounds: int, accelerator: str) -> list[dict[str, Any]]:
    """Rows: how far an arm's losses are from one process's, and its rate over that one's, a
    device: median and range over the rounds."""
    runs: dict[str, list[Run]] = {name: [] for name in ARMS}
    with progress("Training", rounds * len(ARMS)) as tell:
        for turn in range(rounds):
            for number, (name, (devices, strategy)) in enumerate(ARMS.items(), 1):
                runs[name].append(train(config, devices, strategy, images, accelerator))
                tell(turn * len(ARMS) + number)
    alone = runs["1"]
    rows = []
    for name, (devices, _) in ARMS.items():
        ratios = [r.rate / a.rate / devices for r, a in zip(runs[name], alone, strict=True)]
        pairs = zip(runs[name][0].losses, alone[0].losses, strict=True)
        rows.append(
            {
                "processes": name,
                "steps": len(alone[0].losses),
                "loss_off_by": max(abs(mine - one) / one for mine, one in pairs),
                "images_per_second": statistics.median(run.rate for run in runs[name]),
                "efficiency": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
            }
        )
    return rows


@dataclass(frozen=True)
class Plan:
    """A configuration counted: weights, images a step, operations an image and step, and of each
    part that fsdp2 puts together by itself its weights and how often a step calls it."""

    config: str
    weights: int
    images: int
    operations: float
    parts: list[tuple[int, int]]


def plan(config: str) -> Plan:
    """Of ``FILE+FILE:CxHxW``: files that stack, and the shape of samples where they do not say it.

    The operations are counted on one image without a label, here.
    """
    files, _, given = config.partition(":")
    content: dict[str, Any] = {}
    for file in files.split("+"):
        content = _stacked(content, read_yaml(Path(file).read_text(), file))
    model, data = content["model"], content["data"]
    shape = _shape(data["source"], given, file)
    recorded = model["backbone"] | {
        "init_args": {**model["backbone"].get("init_args", {}), "shape": list(shape)}
    }
    objective: Objective = DenoisingScoreMatching()
    if named := model.get("objective"):
        what = {"class_path": named} if isinstance(named, str) else named
        objective = build_recorded(Objective, what, "model.objective")  # type: ignore[type-abstract]
    network = build_recorded(Network, recorded, "model.backbone")  # type: ignore[type-abstract]
    denoiser = build_denoiser(network, 0.5, model.get("parametrization", "inner_product")).train()
    parts = list(network.parts()) if isinstance(network, ScalarNetwork) else []
    calls: Counter[nn.Module] = Counter()
    for part, methods in parts:
        for method in ("forward", *methods):
            setattr(part, method, _counted(getattr(part, method), part, calls))

    def gradient() -> None:
        clean = torch.ones(1, *shape)
        batch = NoisyBatch(clean, torch.ones(1), clean, 0.5, None)
        torch.stack([*objective(denoiser, batch).values()]).sum().backward()

    counted = operations(gradient)
    sizes = [(_size(part), calls[part]) for part, _ in parts]
    return Plan(
        "/".join(Path(file).with_suffix("").parts[-2:]),
        _size(denoiser),
        data["batch_size"],
        counted,
        sizes,
    )


def _stacked(lower: Any, upper: Any) -> Any:
    if not (isinstance(lower, Mapping) and isinstance(upper, Mapping)):
        return upper
    return {**lower, **{name: _stacked(lower.get(name), v) for name, v in upper.items()}}


def _shape(source: Any, given: str, file: str) -> tuple[int, ...]:
    if given:
        return tuple(map(int, given.split("x")))
    arguments = source.get("init_args", {}) if isinstance(source, Mapping) else {}
    if "image_size" not in arguments:
        raise UserError(f"{file} does not say the shape of its samples: give it as {file}:3x32x32.")
    size = arguments["image_size"]
    return (arguments.get("channels", 3), size, size)


def _counted(
    method: Callable[..., Any], part: nn.Module, calls: Counter[nn.Module]
) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        calls[part] += 1
        return method(*arguments, **options)

    return call


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@dataclass(frozen=True)
class Machine:
    """What is assumed of devices: operations a second; bytes a second out of each, to others of its
    node and of other nodes; seconds that a message takes to arrive."""

    peak: float
    inside: float
    between: float
    node: int
    latency: float


@dataclass(frozen=True)
class Row:
    """A step on so many devices: images, bytes out of and seconds of one of them, and what it waits
    for longest."""

    config: str
    devices: int
    strategy: str
    images: float
    megabytes: float
    computing: float
    sending: float
    arriving: float
    bound: str
    balance: float


def on_paper(counted: Plan, devices: int, strategy: str, machine: Machine) -> Row:
    """docs/scaling.md has the formulae."""
    share = (devices - 1) / devices * BYTES
    of_parts = sum(weights for weights, _ in counted.parts)
    sent, messages = 2 * share * counted.weights, 4
    if strategy == "fsdp2":
        again = sum(3 * calls * weights for weights, calls in counted.parts)
        sent = share * (2 * (counted.weights - of_parts) + again)
        messages = 6 + sum(3 * calls for _, calls in counted.parts)
    bandwidth = machine.inside if devices <= machine.node else machine.between
    sending = sent / bandwidth
    arriving = messages * math.ceil(math.log2(devices)) * machine.latency
    images = counted.images / devices
    computing = images * counted.operations / machine.peak
    waits = {"operations": computing, "bandwidth": sending, "latency": arriving}
    bound = max(waits, key=lambda name: waits[name]) if images >= 1 else "images"
    balance = (sending + arriving) * machine.peak / counted.operations
    return Row(
        *(counted.config, devices, strategy, images, sent / 1e6),
        *(computing, sending, arriving, bound, balance),
    )


def table(title: str, rows: list[dict[str, Any]]) -> Table:
    result = Table(title=title)
    for name in rows[0]:
        result.add_column(name, justify="right")
    for row in rows:
        result.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    return result


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure or count, print, and write the numbers if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--config", default=CONFIG, metavar="FILE", help="what is trained")
    parser.add_argument("--images", type=int, default=3_200, help="that a run is long")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, in turn")
    parser.add_argument("--accelerator", default="cpu", help="Lightning's name of it")
    parser.add_argument(
        "--paper", nargs="*", metavar="FILE[+FILE][:CxHxW]", help="count, train nothing"
    )
    parser.add_argument("--devices", type=int, nargs="+", default=DEVICES, help="on paper")
    parser.add_argument("--peak", type=float, default=989e12, help="operations/s of a device")
    parser.add_argument("--inside", type=float, default=450e9, help="bytes/s within a node")
    parser.add_argument("--between", type=float, default=50e9, help="bytes/s between nodes")
    parser.add_argument("--node", type=int, default=8, help="devices of a node")
    parser.add_argument("--latency", type=float, default=5e-6, help="seconds of a message")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    args = parser.parse_args(arguments)
    if args.paper is None:
        rows = compare(args.config, args.images, args.rounds, args.accelerator)
        title = f"{args.config}, {args.images:,} images on {args.accelerator}"
    else:
        machine = Machine(args.peak, args.inside, args.between, args.node, args.latency)
        plans = [plan(config) for config in args.paper or CONFIGS]
        rows = [
            asdict(on_paper(counted, devices, strategy, machine))
            for counted in plans
            for devices in args.devices
            for strategy in ("ddp", "fsdp2")
        ]
        for counted in plans:
            print(
                f"{counted.config}: {counted.weights:,} weights,"
                f" {counted.operations / 1e9:.3g} Gflop an image and step"
            )
        title = f"a step on paper, of {args.peak:.3g} operations/s a device"
    Console(width=160).print(table(title, rows))
    if args.json:
        write_json(args.json, rows)
    return rows


if __name__ == "__main__":
    with sentences():
        main()
