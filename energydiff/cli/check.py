"""Is a field the gradient of its energy? ``energydiff check runs/digits/energy_unet``."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import energydiff
from energydiff.checking import check
from energydiff.cli.parser import function_parser
from energydiff.cli.training import EnergyDiffCLI
from energydiff.errors import UserError
from energydiff.potentials.check import move_weights
from energydiff.saving import SavedModel
from energydiff.training.module import DiffusionModule

FAILED = 3
SUFFIXES = (".yaml", ".yml")


def examine(model: Path, device: str = "cpu", compiled: bool = False, sharded: bool = True) -> bool:
    """Whether ∇E is the gradient of E in every way that it is computed, by a table.

    In float64 against differences of E and of itself: slopes over five step sizes, symmetry of its
    Jacobian, work around loops, and the training gradient against differences in the weights. Every
    other way is held against that. Exit code 3 if something is wrong.

    Args:
        model: A run folder, checkpoint or export; or the configuration of a run not yet begun,
            whose network is looked at with weights moved a little.
        device: Of all ways but the first: cpu, cuda.
        compiled: Also compiled, which takes minutes.
        sharded: Also with the weights shared out between processes, which take seconds to start.
    """
    saved = untrained(model) if model.suffix in SUFFIXES else energydiff.open_model(model)
    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise UserError(f"device is {device}, which is not here: choose cpu, or cuda on a GPU.")
    table = Table(title=f"Is ∇E the gradient of E? {model}", title_justify="left")
    for column in ("way", "what", "relative error", "allowed", ""):
        table.add_column(column)
    holds = True
    for checked in check(saved, device, compiled, sharded):
        holds &= checked.holds
        if not checked.findings:
            table.add_row(
                checked.way, checked.why, "", "", "FAILED" if checked.failed else "not taken"
            )
        for i, finding in enumerate(checked.findings):
            row = (checked.way if i == 0 else "", finding.what, f"{finding.error:.1e}")
            table.add_row(*row, f"{finding.tolerance:.0e}", "ok" if finding.holds else "FAILED")
        table.add_section()
    Console().print(table)
    print("It is, in every way that was taken." if holds else "It is not: see FAILED above.")
    return holds


def untrained(config: Path) -> SavedModel:
    """The model of a configuration, its weights moved."""
    eager = ["--trainer.logger", "false", "--model.compile", "false"]
    module = EnergyDiffCLI("fit", ["--config", str(config), *eager]).model
    assert isinstance(module, DiffusionModule)
    move_weights(module.denoiser)  # the command line has seeded them
    return module.saved_model()


def main(arguments: Sequence[str]) -> int:
    """0, or 3 if the field is not the gradient of the energy."""
    parser = function_parser(examine, "energydiff check", usage="MODEL")
    return 0 if examine(**parser.parse_args(arguments[1:]).as_dict()) else FAILED
