"""Export a trained model: ``energydiff export runs/digits/energy_unet --out model/``."""

from collections.abc import Sequence
from pathlib import Path

import energydiff
from energydiff.cli.parser import function_parser
from energydiff.training.finish import calibrate


def export(model: Path, out: Path = Path("model"), calibration: int = 0) -> None:
    """Write model.safetensors and model.yaml of a trained model.

    Args:
        model: A run folder, a checkpoint or another export.
        out: Folder for the two files.
        calibration: Fix the energy's gauge anew on so many noise derivatives, on the data of its
            run; 0 keeps the gauge it has.
    """
    saved = energydiff.open_model(model)
    if calibration:
        calibrate(saved, calibration)
    energydiff.save_model(saved, out)
    print(f"Saved {out / 'model.safetensors'} and {out / 'model.yaml'}.")


def main(arguments: Sequence[str]) -> int:
    """0."""
    parser = function_parser(export, "energydiff export", usage="MODEL")
    export(**parser.parse_args(arguments[1:]).as_dict())
    return 0
