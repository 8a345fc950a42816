"""Checkpoints that a kill cannot destroy."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from energydiff.files import whole


class WholeCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint in one step, on the file system where it lies.

    Lightning writes it to the folder for temporary files and moves it, which is a copy over the old
    one where that is another file system: killed then, a run has neither.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """To a local file; ``storage_options`` have no meaning there and are refused."""
        if storage_options is not None:
            raise TypeError("storage_options are for remote file systems")
        with whole(Path(path)) as partial:
            torch.save(checkpoint, partial)
