"""The large presets: parameters, operations and memory of each, counted on no device at all.

    python -m benchmarks.large [NAME ...] [--run] [--batch N] [--device DEVICE]

Prints the table of docs/large.md, whose memory is an estimate: a training step in mixed precision
is taken on fake tensors, PyTorch's meta tensors under the name of a device, and the bytes alive at
once are counted. With --run every preset takes real steps on the device there is, on random data,
and what is printed is measured.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.cost.work import denoiser_call
from energydiff.denoisers import build_denoiser
from energydiff.diffusion import DenoisingScoreMatching, NoisyBatch, Objective
from energydiff.energies import Denoiser
from energydiff.evaluation.cost import Work, operations, peak_bytes, timings
from energydiff.potentials import Network
from energydiff.progress import with_progress
from energydiff.registry import find

CONFIGS = Path(__file__).parents[1] / "configs" / "large"
SHAPES = {"cifar10": (3, 32, 32), "images64": (3, 64, 64), "latent32": (4, 32, 32)}
BASELINES = {"energy_unet": "unet"} | {f"energy_{n}": f"dit_{n}" for n in ("s", "b", "l", "xl")}
DEVICES = (24, 80, 141)  # GB
USABLE = 0.9  # of a device: libraries and an allocator's gaps take the rest
STATE_BYTES = 4 * 5  # of a weight: itself, its gradient, AdamW's two moments, its average


@dataclass(frozen=True)
class Counted:
    """What is known of a preset without running it.

    Attributes:
        call, step: operations of a denoiser call and of a training step, an image.
        fixed, image: bytes of a training step beside the state, whatever the batch, and an image.
    """

    parameters: int
    call: int
    step: int
    fixed: float
    image: float

    def batch(self, gigabytes: int) -> int:
        """Images of a step for which a device has room; 0 where it has none for the weights."""
        room = USABLE * gigabytes * 1e9 - STATE_BYTES * self.parameters - self.fixed
        return max(0, int(room / self.image))


def presets() -> list[str]:
    """The name of each, as ``cifar10/unet``; a baseline before its energy."""
    arms = [arm for pair in BASELINES.items() for arm in reversed(pair)]
    return [
        f"{data}/{a}" for data in SHAPES for a in arms if (CONFIGS / data / f"{a}.yaml").exists()
    ]


def build(preset: str, device: str = "meta") -> tuple[Denoiser, Objective]:
    """An untrained model and its objective."""
    data, _, _ = preset.partition("/")
    model: dict[str, Any] = yaml.safe_load((CONFIGS / f"{preset}.yaml").read_text())["model"]
    kind = find(Network, model["backbone"]["class_path"], preset)  # type: ignore[type-abstract]
    with torch.device(device):
        network = kind(SHAPES[data], **model["backbone"]["init_args"])  # type: ignore[call-arg]
        denoiser = build_denoiser(network, 1.0, model["parametrization"])
    if "objective" not in model:
        return denoiser, DenoisingScoreMatching()
    return denoiser, find(Objective, model["objective"], preset)()  # type: ignore[type-abstract]


def training_step(denoiser: Denoiser, objective: Objective, images: int, device: str) -> Work:
    """Forward, loss and backward in mixed precision, on noise."""
    x0, noise = torch.randn(2, images, *denoiser.shape, device=device)
    batch = NoisyBatch(x0, torch.ones(images, device=device), noise, 1.0)

    def work() -> None:
        with torch.autocast(device, torch.bfloat16):
            parts = objective(denoiser, batch)
        torch.stack([*parts.values()]).sum().backward()

    return work


def count(preset: str) -> Counted:
    """On fake tensors of the CPU; nothing is computed."""
    denoiser, objective = build(preset)
    few, many = 8, 16
    with FakeTensorMode():
        make_fake(denoiser)
        one = denoiser_call(denoiser, torch.randn(1, *denoiser.shape))
        call = operations(one)
        step = operations(training_step(denoiser, objective, 1, "cpu"))
        low, high = (
            peak_bytes(training_step(denoiser, objective, n, "cpu"), "cpu") for n in (few, many)
        )
    image = (high - low) / (many - few)
    parameters = sum(p.numel() for p in denoiser.parameters())
    return Counted(parameters, call, step, low - few * image, image)


def make_fake(module: nn.Module) -> None:
    """Gives every weight a fake tensor in place of its meta tensor, and a gradient."""
    for part in module.modules():
        for name, weight in [*part.named_parameters(recurse=False)]:
            part.register_parameter(name, nn.Parameter(_like(weight)))
            getattr(part, name).grad = _like(weight)
        for name, buffer in [*part.named_buffers(recurse=False)]:
            part.register_buffer(name, _like(buffer))


def _like(t: Tensor) -> Tensor:
    return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype)


def table(counted: dict[str, Counted]) -> str:
    """Of docs/large.md, in Markdown."""
    batches = " | ".join(f"{size} GB" for size in DEVICES)
    lines = [
        "| preset | parameters, M | call, GFLOP | step, GFLOP | ÷ baseline | state, GB |"
        f" an image, MB | {batches} |",
        "|---" * (7 + len(DEVICES)) + "|",
    ]
    for preset, row in counted.items():
        data, _, arm = preset.partition("/")
        baseline = counted.get(f"{data}/{BASELINES.get(arm)}")
        ratio = "" if baseline is None else f"{row.step / baseline.step:.2f}"
        cells = [
            *(f"`{preset}`", f"{row.parameters / 1e6:.1f}", f"{row.call / 1e9:.1f}"),
            *(f"{row.step / 1e9:.1f}", ratio, f"{STATE_BYTES * row.parameters / 1e9:.2f}"),
            *(f"{row.image / 1e6:.0f}", *(f"{row.batch(size):,}" for size in DEVICES)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def run(preset: str, images: int, device: str) -> str:
    """Real steps, AdamW among them, in words."""
    denoiser, objective = build(preset, device)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4)
    gradients = training_step(denoiser, objective, images, device)

    def work() -> None:
        gradients()
        optimizer.step()
        optimizer.zero_grad()

    seconds = timings({preset: work}, 1, device)[preset].seconds
    peak = peak_bytes(work, device)
    return (
        f"{preset}: {images / seconds:.3g} images a second at {images} a step, {peak / 1e9:.2f} GB"
        " beside weights and moments"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Counts, or runs, all presets or those named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only presets with this in it")
    parser.add_argument("--run", action="store_true", help="take real steps instead of counting")
    parser.add_argument("--batch", type=int, default=16, help="images of a real step")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="of a real step")
    args = parser.parse_args(arguments)
    chosen = [p for p in presets() if not args.names or any(name in p for name in args.names)]
    if args.run:
        for preset in chosen:
            print(run(preset, args.batch, args.device), flush=True)
    else:
        told = with_progress(chosen, len(chosen), "Counting presets")
        print(table({preset: count(preset) for preset in told}))


if __name__ == "__main__":
    main()
