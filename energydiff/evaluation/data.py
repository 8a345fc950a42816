"""The data that samples are measured against, as a small YAML file describes it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from energydiff.data import DataSpec, Digits, Source, Splits
from energydiff.errors import UserError
from energydiff.registry import build_recorded


@dataclass(frozen=True)
class EvaluationData:
    """A data set, which part of it is the reference, and what looks at it.

    Args:
        source: as in training (docs/data.md); labels are needed by the classifier's features alone.
            By default the run's own where there is a run, and the labelled digits elsewhere.
        reference: the part that samples are measured against; published FIDs use ``train``.
        extractor: whose features; see docs/extractors.md. ``classifier`` by default where there are
            labels, else ``inception-v3-compat`` or ``efficientnet-lite0``, whichever is at hand.
        small_reference: more samples than the reference has images are meant so.
    """

    source: DataSpec | None = None
    reference: Literal["train", "held_out"] = "train"
    extractor: str | None = None
    small_reference: bool = False

    @property
    def spec(self) -> DataSpec:
        """The source, or the default one."""
        return self.source or Digits(labels=True)

    def open(self) -> Splits:
        """Training and held-out part."""
        return self.spec.open()

    def within(self, config: dict[str, Any], path: Path) -> "EvaluationData":
        """The same, of the data that a run was trained on where no source is named; ``UserError``
        as of :meth:`of_run`."""
        if self.source is not None:
            return self
        own = EvaluationData.of_run(config, path)
        return replace(self, source=own.source, small_reference=True)

    def reference_of(self, splits: Splits) -> Source:
        """The part that samples are measured against."""
        return splits.train if self.reference == "train" else splits.held_out

    def require_enough(self, samples: int, reference: Source) -> None:
        """``UserError`` if there are more samples than reference images and nobody said so."""
        if samples > len(reference) and not self.small_reference:
            raise UserError(
                f"the {self.reference} part of {self.spec.describe()} has {len(reference):,}"
                f" images, fewer than the {samples:,} samples: take fewer (-n of energydiff"
                " evaluate, samples of QualityMonitor), or say small_reference: true if that is"
                " meant (in the --data file, in data of QualityMonitor)."
            )

    def describe(self) -> str:
        """In words."""
        return f"{self.spec.describe()}, {self.reference} part"

    @classmethod
    def of_run(cls, config: dict[str, Any], path: Path) -> "EvaluationData":
        """The data that a run was trained on; its reference may be small.

        Raises:
            UserError: the model's file does not say what that was.
        """
        recorded, what = _recorded_source(config, path)
        spec = build_recorded(DataSpec, recorded, what)  # type: ignore[type-abstract]
        return cls(replace(spec, labels=spec.labels or spec.labelled), small_reference=True)

    @classmethod
    def recorded(cls, config: dict[str, Any], path: Path) -> dict[str, Any]:
        """What :meth:`of_run` finds as a data file would say it, for overrides to start from."""
        source, _ = _recorded_source(config, path)
        labels = {"labels": cls.of_run(config, path).spec.labels}
        init_args = (source.get("init_args") or {}) | labels
        return {"source": {**source, "init_args": init_args}, "small_reference": True}


def _recorded_source(config: dict[str, Any], path: Path) -> tuple[dict[str, Any], str]:
    """The source that a run was trained on, as it was recorded, and where that was."""
    if "data" not in config:
        raise UserError(f"{path} does not say what data it was trained on: give --data.")
    return config["data"]["source"], f"the data.source recorded in {path}"
