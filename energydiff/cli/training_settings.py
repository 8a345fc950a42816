"""What settings of a training must be, and what is counted by them."""

import math
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import StrategyRegistry

from energydiff.errors import UserError
from energydiff.training.ema import require_averageable

PRECISIONS = ("32", "32-true", "bf16", "bf16-mixed")


def require_ranges(config: Any) -> None:
    """``UserError`` for numbers that Lightning would stumble over."""
    for name in ("val_every_images", "checkpoint_every_images", "keep_every_images", "keep_best"):
        if config[name] < 0:
            raise UserError(f"{name} is {config[name]}; it must be at least 0 (never).")
    if config.keep_best and not config.val_every_images:
        raise UserError(
            f"keep_best {config.keep_best} needs held-out losses to choose by: set val_every_images"
            " above 0, or leave it out."
        )
    if not 0 <= config.seed_everything < 2**32:
        raise UserError(f"seed_everything is {config.seed_everything}; it must be 0 to 2³² − 1.")
    precision = str(config.trainer.precision or "32")
    if precision not in PRECISIONS:
        # float16: loss scaling overflows on purpose now and then, and an overflow stops a run.
        raise UserError(
            f"trainer.precision {precision} is not supported: use 32-true, or bf16-mixed (networks"
            " in bfloat16, energies in float32)."
        )


def require_strategy(config: Any) -> None:
    """``UserError`` before Lightning asks for what the strategy would need."""
    name = config.trainer.strategy
    if isinstance(name, str) and name in StrategyRegistry:
        require_averageable(StrategyRegistry[name]["strategy"], name)
    if name == "fsdp2" and config.get("model.compile"):
        raise UserError(
            "trainer.strategy fsdp2 and model.compile do not go together: a compiled energy would"
            " miss weights that are elsewhere; use ddp, or leave model.compile out."
        )


def fix_paths(config: Any) -> None:
    """Paths to the data and a teacher, made absolute: what is recorded holds from any folder."""
    for name in ("data.source.init_args.root", "teacher"):
        if path := config.get(name):
            config[name] = type(path)(Path(path).expanduser().resolve())


def steps_of(total_images: int, batch_size: int) -> int:
    """Steps of that many images, the last of fewer."""
    return math.ceil(total_images / max(1, batch_size))  # the data module refuses less than 1


NEVER = 10**12


def batches_of(every_images: int, batch_size: int, accumulate: int) -> int:
    """Batches of that many images, in whole steps; 0 images mean never."""
    if every_images == 0:
        return NEVER
    return max(1, every_images // max(1, batch_size)) * accumulate
