"""A step that was not finite, again: ``energydiff replay runs/x/nonfinite/000064000``."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from energydiff.cli.complete import CompletionCLI
from energydiff.cli.parser import function_parser
from energydiff.cli.training import EnergyDiffCLI
from energydiff.completion.training import FORMAT
from energydiff.saving import CHECKPOINT_KEY
from energydiff.training.checkpoint import Checkpoint
from energydiff.training.module import DiffusionModule
from energydiff.training.nonfinite import WEIGHTS, read, replay

SHOWN = 8


def again(step: Path, accelerator: str = "auto", precision: str | None = None) -> None:
    """Takes a step of training that was not finite again, rank by rank, and says what is bad.

    The weights are those of the step before, the batches those that training had. Nothing is
    written and no weight moved.

    Args:
        step: A folder that fit wrote into nonfinite/ of its run.
        accelerator: As in Lightning: auto, cpu, gpu, mps.
        precision: 32-true or bf16-mixed; that of the run by default.
    """
    report, ranks = read(step)
    file = step / WEIGHTS
    checkpoint = Checkpoint.open(file)
    completion = checkpoint.content[CHECKPOINT_KEY].get("format") == FORMAT
    command = (CompletionCLI if completion else EnergyDiffCLI)(
        "fit",
        [
            *("--config", str(step.parents[1] / "config.yaml"), "--ckpt_path", str(file)),
            *("--trainer.accelerator", accelerator, "--trainer.devices", "1"),
            *("--trainer.strategy", "auto", "--trainer.logger", "false"),
            *("--trainer.precision", precision or str(report["precision"])),
        ],
    )
    command.model.load_state_dict(checkpoint.content["current_model_state"])
    command.model.steps = report["step"]
    if isinstance(command.model, DiffusionModule) and command.model.stable_targets:
        command.model.learn_mean_of(command.datamodule)
    device = command.trainer.strategy.root_device.type
    where = f"on {device} in {command.trainer.precision}"
    table = Table(title=f"Step {report['step']}, {where}", title_justify="left")
    for column in ("rank", "image", "sample", "σ", "loss then", "loss now"):
        table.add_column(column)
    found = []
    for share, batches in zip(report["ranks"], ranks, strict=True):
        command.model.zero_grad()
        now = replay(command.trainer, command.model, batches)
        worst = torch.nan_to_num(now.losses, torch.inf).argsort(descending=True)[:SHOWN].tolist()
        for i in worst:
            then = share["losses"][i]
            table.add_row(
                *(str(share["rank"]), f"{share['counts'][i]:,}", share["names"][i]),
                *(f"{share['levels'][i]:.4g}", "not finite" if then is None else f"{then:.4g}"),
                f"{float(now.losses[i]):.4g}",
            )
        parts = [f"first in {now.first}"] if now.first else []
        if now.parameters:
            parts.append(
                f"in the gradient of {len(now.parameters)} parameters, first {now.parameters[0]}"
            )
        said = f"not finite {'; '.join(parts)}" if parts else "all finite"
        found.append(f"Rank {share['rank']}: gradient norm {now.norm:.4g}, {said}.")
    Console().print(table)
    print(*found, f"Then it was on {report['device']} in {report['precision']}.", sep="\n")


def main(arguments: Sequence[str]) -> int:
    """0."""
    parser = function_parser(again, "energydiff replay", usage="FOLDER")
    again(**parser.parse_args(arguments[1:]).as_dict())
    return 0
