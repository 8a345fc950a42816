"""The extractors that torch-fidelity publishes, on weights that the user puts there.

torch-fidelity fetches missing weights from the network. Here a file is found or the user is told
where it is published: nothing is ever downloaded.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_clip import MODEL_METADATA as CLIP_MODELS
from torch_fidelity.feature_extractor_clip import MODEL_URLS as CLIP_URLS
from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA as DINOV2_MODELS
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from torchvision.models import VGG16_Weights

from energydiff.errors import UserError
from energydiff.evaluation.extractors.base import Extractor, three_channels
from energydiff.evaluation.records import INCEPTION, makes_fid
from energydiff.files import digest_file

DINOV2_URL = "https://dl.fbaipublicfiles.com/dinov2/{0}/{0}_pretrain.pth"
DINOV2_CODE = "https://github.com/facebookresearch/dinov2"


@dataclass(frozen=True)
class Weights:
    """Where weights are published, and their file name under $TORCH_HOME/hub/checkpoints."""

    url: str
    file: str


def _named_by_url(url: str) -> Weights:
    return Weights(url, url.rsplit("/", 1)[1])


PUBLISHED = {
    INCEPTION: _named_by_url(URL_INCEPTION_V3),
    "vgg16": _named_by_url(VGG16_Weights.IMAGENET1K_V1.url),
    **{
        name: Weights(url, f"{name}-{CLIP_MODELS[name]['hash']}.pt")
        for name, url in CLIP_URLS.items()
    },
    **{name: _named_by_url(DINOV2_URL.format(model)) for name, model in DINOV2_MODELS.items()},
}


class PublishedExtractor(Extractor):
    """A torch-fidelity extractor on the layers that its metrics use by default.

    Its logits are those of the Inception Score; the other networks have no classes.

    Args:
        name: a key of ``PUBLISHED``.
        weights: the file; by default it is looked for under $TORCH_HOME/hub/checkpoints.
    """

    def __init__(self, name: str, weights: Path | None = None) -> None:
        file = weights or Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED[name].file
        if not file.is_file():
            raise UserError(
                f"the weights of {name} are not at {file}: get {PUBLISHED[name].url} and give it"
                f" with --weights FILE, or put it in $TORCH_HOME/hub/checkpoints under the name"
                f" {PUBLISHED[name].file}."
            )
        network = _build(name, file)
        with torch.no_grad():
            shapes = [out.shape[1] for out in network(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))]
        size = getattr(network, "INPUT_IMAGE_SIZE", None) or network.resolution
        resize = f"bilinear to {size}x{size} pixels as TensorFlow 1, without antialiasing"
        super().__init__(name, digest_file(file), resize, *shapes)
        self.network, self._file = network.eval().requires_grad_(False), file

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process reads the file itself: DINOv2's code is found by torch.hub alone."""
        return PublishedExtractor, (self.name, self._file)

    def extract(self, images: Tensor) -> Tensor:
        return torch.cat(self.network(three_channels(images)), 1)

    @property
    def distance_name(self) -> str:
        if self.name != INCEPTION:
            return super().distance_name
        published = makes_fid(self.name, self.digest)
        return "FID" if published else f"Fréchet distance ({self.name}, other weights)"


class _LocalDinoV2(FeatureExtractorDinoV2):  # its own constructor only knows the network
    """DINOv2 of code and weights that lie on this machine."""

    def __init__(self, name: str, layers: list[str], file: Path) -> None:
        FeatureExtractorBase.__init__(self, name, layers)
        code = Path(torch.hub.get_dir()) / "facebookresearch_dinov2_main"
        if not (code / "hubconf.py").is_file():
            raise UserError(
                f"the code of {name} is not at {code}: get {DINOV2_CODE} and put its files there."
            )
        self.feature_extractor_internal_dtype = torch.float32
        self.model: Any = torch.hub.load(
            str(code), DINOV2_MODELS[name], source="local", pretrained=False
        )
        self.model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))


def _build(name: str, file: Path) -> Any:
    """torch-fidelity's network on this file; ``UserError`` if it does not hold its weights."""
    make = FEATURE_EXTRACTORS_REGISTRY[name]
    layers = [make.get_default_feature_layer_for_metric("fid")]
    if name == INCEPTION:
        layers.append(make.get_default_feature_layer_for_metric("isc"))
    try:
        if name in DINOV2_MODELS:
            return _LocalDinoV2(name, layers, file)
        if name not in CLIP_URLS:  # an archive of TorchScript; the others are read by unpickling
            torch.load(file, map_location="cpu", weights_only=True)  # which must meet tensors only
        return make(name, layers, feature_extractor_weights_path=str(file), verbose=False)
    except UserError:
        raise
    except Exception as error:  # a file of other things can raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{file} does not hold the weights of {name} ({reason}): get {PUBLISHED[name].url}."
        ) from error
