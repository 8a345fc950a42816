"""A logger of one's own: what it is told lies in a file of its folder."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class Recorder(Logger):
    def __init__(self, folder: str) -> None:
        super().__init__()
        self.file = Path(folder) / "told.jsonl"

    @property
    def name(self) -> str:
        return "recorder"

    @property
    def version(self) -> int:
        return 0

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._tell({"step": step, **metrics})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self._tell({"configuration": params})

    def _tell(self, content: dict[str, Any]) -> None:
        with self.file.open("a") as opened:
            opened.write(json.dumps(content) + "\n")
