"""Lets lightning and torch-fidelity import where torch has no CUDA but torchvision expects it.

The registry's torchvision wheel is built for CUDA. Beside a CPU build of torch its library does
not load, and importing it, or anything that imports it, fails with "operator torchvision::nms
does not exist" (pytorch/vision issue 9085). Declaring the two missing schemas is enough for
transforms and data sets; ``ops.nms`` and ``io.decode_image`` stay unavailable.
"""

import importlib.util
from pathlib import Path

import torch

_declared: list[torch.library.Library] = []  # a Library undeclares its operators when collected


def guard_torchvision() -> bool:
    """Declare the missing schemas if, and only if, torchvision's library cannot be loaded."""
    if _declared or torch.version.cuda or getattr(torch.version, "hip", None):
        return False
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    folder = Path(next(iter(spec.submodule_search_locations)))
    for library in [*sorted(folder.glob("_C*.so")), *sorted(folder.glob("_C*.pyd"))]:
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return False  # a healthy install
    fragment = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        fragment.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(fragment)
    return True
