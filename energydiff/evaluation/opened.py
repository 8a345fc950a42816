"""A model that a door has opened, once, for all that look at it."""

from dataclasses import dataclass
from pathlib import Path

from energydiff.pipeline import is_pipeline
from energydiff.saving import LAST_CHECKPOINT, SavedModel, open_model


@dataclass(frozen=True)
class OpenedModel:
    """A model and where it was found.

    Attributes:
        path: a run folder, a checkpoint or an export.
        saved: what was read there.
    """

    path: Path
    saved: SavedModel

    @classmethod
    def at(cls, path: str | Path) -> "OpenedModel":
        """Read it; ``UserError`` if there is no model at ``path``."""
        return cls(Path(path), open_model(path))

    @property
    def name(self) -> str:
        """For tables and headings: the last part of its path."""
        return self.path.resolve().name


def is_model(path: Path) -> bool:
    """Whether there is a model at a path, and not a folder of images."""
    return (
        not path.is_dir()  # whatever is wrong with it, opening it says so
        or (path / "model.yaml").is_file()
        or (path / LAST_CHECKPOINT).is_file()
        or is_pipeline(path)
    )
