"""Features of a reference, computed once and remembered with everything they depend on."""

import hashlib
import io
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from energydiff._version import __version__
from energydiff.data import Source
from energydiff.data.remembered import default_cache_dir
from energydiff.errors import UserError
from energydiff.evaluation.extractors import Extractor
from energydiff.evaluation.frechet import gaussian_statistics
from energydiff.evaluation.images import QUANTISATION, image_batches
from energydiff.files import write_whole

FORMAT = "energydiff-reference-1"


@dataclass(frozen=True)
class Reference:
    """What samples are measured against.

    Attributes:
        features: (N, f), float32, on the CPU.
        mean, cov: of the features, (f,) and (f, f), float64.
        digest: SHA-256 of the uint8 images, in order.
        count: N.
        shape: of one image, (C, H, W).
    """

    features: Tensor
    mean: Tensor
    cov: Tensor
    digest: str
    count: int
    shape: tuple[int, ...]

    def require_shape(self, shape: tuple[int, ...]) -> None:
        """``UserError`` unless samples of this shape can be set against the reference."""
        if len(shape) != 3:
            raise UserError(f"only images (C, H, W) can be measured, not samples of shape {shape}.")
        if shape[0] != self.shape[0]:
            mine = "1 channel" if self.shape[0] == 1 else f"{self.shape[0]} channels"
            raise UserError(
                f"the reference has {mine}, the samples have {shape[0]}: give samples and data of"
                " the same kind."
            )
        if shape != self.shape:
            raise UserError(
                f"the reference has images of {self.shape[1]}x{self.shape[2]} pixels, the samples"
                f" have {shape[1]}x{shape[2]}: measure both at one size."
            )


def reference_features(
    source: Source, extractor: Extractor, *, cache: Path | None = None, batch_size: int = 256
) -> Reference:
    """The features of all images of a source, in order; remembered in ``cache``.

    A remembered file is used only if its images, extractor, resize, quantisation and versions are
    those of now; anything else in it, or a damaged file, and it is made again. The features are
    computed on the device of the extractor.

    Args:
        cache: a folder; energydiff's cache folder by default.
        batch_size: images at a time.

    Raises UserError for samples that are not images, or fewer than two.
    """
    provenance = _provenance(source, extractor)
    digest = provenance["images"]
    name = f"reference-{digest[:16]}-{extractor.name}-{extractor.digest[:16]}.npz"
    file = (cache or default_cache_dir()) / name
    measured = _recall(file, provenance, extractor.dim)
    if measured is None:
        batches = image_batches(source, f"Features of the reference ({extractor.name})", batch_size)
        features = torch.cat([extractor.features(extractor(images)).cpu() for images, _ in batches])
        measured = _Measured(features, *gaussian_statistics(features))
        arrays = {name: tensor.numpy() for name, tensor in measured._asdict().items()}
        content = io.BytesIO()
        np.savez(content, provenance=json.dumps(provenance), **arrays)
        write_whole(file, content.getvalue())
    return Reference(*measured, digest, len(source), tuple(provenance["shape"]))


def versions() -> dict[str, str]:
    """Of the packages that a measure depends on."""
    try:
        fidelity = metadata.version("torch-fidelity")
    except metadata.PackageNotFoundError:
        fidelity = "absent"
    return {
        "energydiff": __version__,
        "torch": str(torch.__version__),
        "torch-fidelity": fidelity,
    }


class _Measured(NamedTuple):
    """The arrays of a remembered file."""

    features: Tensor
    mean: Tensor
    cov: Tensor


def _provenance(source: Source, extractor: Extractor) -> dict[str, Any]:
    """What the features depend on, as plain data."""
    digest, shape = hashlib.sha256(), list(source.shape)
    for images, _ in image_batches(source, "Reading the reference"):
        shape = list(images.shape[1:])
        digest.update(images.numpy().tobytes())
    return {
        "format": FORMAT,
        "images": digest.hexdigest(),
        "shape": shape,
        "count": len(source),
        "extractor": extractor.name,
        "extractor_digest": extractor.digest,
        "resize": extractor.resize,
        "quantisation": QUANTISATION,
        "versions": versions(),
    }


def _recall(file: Path, provenance: dict[str, Any], dim: int) -> _Measured | None:
    """What the file holds; None if there is none, or it is damaged or of other things."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            if json.loads(str(archive["provenance"])) != provenance:
                return None
            measured = _Measured(*(torch.from_numpy(archive[name]) for name in _Measured._fields))
    except Exception:  # damaged bytes can raise anything
        return None
    shapes = [(provenance["count"], dim), (dim,), (dim, dim)]
    return measured if [tensor.shape for tensor in measured] == shapes else None
