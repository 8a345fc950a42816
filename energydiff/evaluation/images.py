"""Images as they are measured: uint8, whether they come from a model or from data.

Published distances are those of files, so that samples and reference alike go through the rounding
of :meth:`~energydiff.data.Normalization.to_uint8`.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from energydiff.data import Folder, Source
from energydiff.errors import UserError
from energydiff.progress import with_progress

QUANTISATION = "x·127.5 + 128, clipped to 0..255 and truncated to uint8"


def image_batches(
    source: Source, task: str, batch_size: int = 256
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, C, H, W) uint8 of a source, in order, with their class indices (B,).

    task: what is being done, for the progress. Raises UserError for samples that are not images.
    """
    if source.normalization.picture_shape(source.shape) is None:
        raise UserError(
            f"only images (1 or 3, H, W) can be measured; this data set has samples of shape"
            f" {source.shape}, and no data.source.decoder that makes images of them."
        )
    loader = DataLoader(source, batch_size)
    for raw, labels in with_progress(loader, len(loader), f"{task} (batches)"):
        yield source.normalization.to_uint8(source.normalization.encode(raw)), labels


def open_images(folder: str | Path, channels: int, image_size: int | None = None) -> Source:
    """All images of a folder, by name: one source (channels, H, W) of samples to be measured.

    Raises UserError for colour images where the reference has one channel, and for whatever is
    wrong with the folder; a broken image is never left out. Samples of a poor model may be nearly
    of one grey: that is a warning.
    """
    place = Path(folder).expanduser()
    colour = Folder(place, image_size).whole(measured=True)
    if channels == 3:
        return colour
    pixels, _ = colour[0]
    if channels != 1 or not torch.equal(pixels, pixels[:1].expand_as(pixels)):
        raise UserError(
            f"the images in {folder} have 3 channels, the reference has {channels}: give samples"
            " and data of the same kind."
        )
    return Folder(place, image_size, channels=1).whole(measured=True)
