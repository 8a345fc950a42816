"""The one door to extractors."""

from pathlib import Path

import torch

from energydiff.data import Source
from energydiff.errors import UserError
from energydiff.evaluation.extractors import efficientnet, task_classifier
from energydiff.evaluation.extractors.base import Extractor
from energydiff.extras import import_extra
from energydiff.registry import find


def open_extractor(
    name: str,
    *,
    train: Source | None = None,
    held_out: Source | None = None,
    weights: Path | None = None,
    cache: Path | None = None,
) -> Extractor:
    """The extractor of this name, on the CPU; see docs/extractors.md. Nothing is downloaded.

    Args:
        name: ``classifier``, ``efficientnet-lite0``, one of torch-fidelity's, or the import path of
            one of your own, which takes no arguments.
        train, held_out: labelled data; of the classifier only.
        weights: a file in place of the one in $TORCH_HOME; of torch-fidelity's only.
        cache: where trained classifiers are remembered; energydiff's cache folder by default.

    Raises UserError for an unknown name, a missing package, file or label, and for weights that
    have no meaning or do not fit.
    """
    if weights is not None and (name in (task_classifier.NAME, efficientnet.NAME) or "." in name):
        raise UserError(f"the extractor {name} has weights of its own: leave --weights out.")
    with torch.random.fork_rng(devices=[]):  # networks are initialised before they are loaded
        if name == task_classifier.NAME:
            return task_classifier.open_classifier(train, held_out, cache)
        if name == efficientnet.NAME:
            return efficientnet.EfficientNetLite0()
        if "." in name:
            return find(Extractor, name, "the extractor")()  # type: ignore[call-arg,type-abstract]
        import_extra("torch_fidelity", "fid")
        from energydiff.evaluation.extractors.published import PUBLISHED, PublishedExtractor

        if name not in PUBLISHED:
            own = task_classifier.NAME, efficientnet.NAME
            raise UserError(
                f"there is no extractor {name!r}: choose {', '.join((*own, *PUBLISHED))}."
            )
        return PublishedExtractor(name, weights)
