"""The data that samples are measured against, as a small YAML file describes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from energydiff.data import Source, Splits, open_data
from energydiff.data.open import HELD_OUT, SourceName
from energydiff.errors import UserError

_LABELLED = ("digits", "idx", "cifar10")


@dataclass(frozen=True)
class EvaluationData:
    """A data set, which part of it is the reference, and what looks at it.

    Args:
        source, root, image_size, channels, labels, held_out, value_range: as in training
            (docs/data.md); labels are needed by the classifier's features alone.
        reference: the part that samples are measured against; published FIDs use ``train``.
        extractor: whose features; see docs/evaluate.md. ``classifier`` by default where there are
            labels, else ``inception-v3-compat``.
        small_reference: more samples than the reference has images are meant so.
    """

    source: SourceName = "digits"
    root: Path | None = None
    image_size: int | None = None
    channels: Literal[1, 3] | None = None
    labels: bool = True
    held_out: float = HELD_OUT
    value_range: tuple[float, float] | None = None
    reference: Literal["train", "held_out"] = "train"
    extractor: str | None = None
    small_reference: bool = False

    def open(self) -> Splits:
        """Training and held-out part."""
        return open_data(
            self.source,
            root=self.root,
            image_size=self.image_size,
            channels=self.channels,
            labels=self.labels,
            held_out=self.held_out,
            value_range=self.value_range,
        )

    def reference_of(self, splits: Splits) -> Source:
        """The part that samples are measured against."""
        return splits.train if self.reference == "train" else splits.held_out

    @property
    def extractor_name(self) -> str:
        """The chosen extractor, or the default one."""
        return self.extractor or ("classifier" if self.labels else "inception-v3-compat")

    def require_enough(self, samples: int, reference: Source) -> None:
        """``UserError`` if there are more samples than reference images and nobody said so."""
        if samples > len(reference) and not self.small_reference:
            raise UserError(
                f"the {self.reference} part of {self.source} has {len(reference):,} images, fewer"
                f" than the {samples:,} samples: lower -n, or say small_reference: true in the"
                " --data file if that is meant."
            )

    def describe(self) -> str:
        """In words."""
        root = f" at {self.root}" if self.root else ""
        return f"{self.source}{root}, {self.reference} part"

    @classmethod
    def of_run(cls, config: dict[str, Any], path: Path) -> "EvaluationData":
        """The data that a run was trained on; its reference may be small.

        Raises:
            UserError: the model's file does not say what that was.
        """
        if "data" not in config:
            raise UserError(f"{path} does not say what data it was trained on: give --data.")
        names = ("source", "root", "image_size", "channels", "held_out", "value_range")
        given = {name: config["data"].get(name) for name in names}
        known = {name: value for name, value in given.items() if value is not None}
        labels = known.get("source", "digits") in _LABELLED
        if "value_range" in known:  # YAML knows lists only
            known["value_range"] = tuple(known["value_range"])
        return cls(**known, labels=labels, small_reference=True)
