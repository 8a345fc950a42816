"""An energy from a model one already has: ``energydiff distil TEACHER --config …``."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_info

from energydiff.cli.training import EnergyDiffCLI
from energydiff.errors import UserError
from energydiff.training.module import DiffusionModule
from energydiff.training.teaching import start_where_fitting


class DistilCLI(EnergyDiffCLI):
    """``fit`` with a teacher, from the teacher's weights where they fit."""

    given = " TEACHER"
    examples = (
        "runs/digits/baseline_unet --config configs/digits/energy_inner_product.yaml"
        " --model.total_images 48000",
    )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        if not self.config.teacher:
            raise UserError(
                "energydiff distil needs a teacher, first of all: energydiff distil TEACHER"
                " --config FILE, where TEACHER is a run folder, a checkpoint or an export."
            )

    def start(self) -> None:
        super().start()
        if self.initial is None:
            assert isinstance(self.model, DiffusionModule) and self.teacher is not None
            said = start_where_fitting(self.model, self.teacher)
            rank_zero_info(f"Teacher {self.config.teacher}: {said}")


def main(arguments: Sequence[str]) -> int:
    """0."""
    command, *given = arguments
    if given and not given[0].startswith("-"):
        given = [*given[1:], "--teacher", given[0]]
    DistilCLI(command, given).go()
    return 0
