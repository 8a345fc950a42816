"""The small classifier trained on the task's own data set, remembered by what it was trained on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from energydiff.data import Source
from energydiff.data.remembered import default_cache_dir
from energydiff.data.split import require_held_out
from energydiff.errors import UserError
from energydiff.evaluation import classifier as recipe
from energydiff.evaluation.classifier import Classifier, train_classifier
from energydiff.evaluation.extractors.base import Extractor
from energydiff.evaluation.images import QUANTISATION, image_batches
from energydiff.files import digest_file, write_whole
from energydiff.progress import progress

NAME = "classifier"
FORMAT = "energydiff-classifier-1"


class TaskClassifier(Extractor):
    """64 standardised features and the logits of a trained ``Classifier``.

    Attributes:
        shape: of the images it was trained on and takes, (C, H, W).
        held_out_accuracy: share of held-out images that it names rightly.
    """

    def __init__(
        self, model: Classifier, shape: tuple[int, ...], digest: str, held_out_accuracy: float
    ) -> None:
        classes = len(model.state_dict()["head.1.bias"])
        super().__init__(NAME, digest, "none", recipe.FEATURES, classes)
        self.model = model.eval().requires_grad_(False)
        self.shape, self.held_out_accuracy = shape, held_out_accuracy

    def extract(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != self.shape:
            raise UserError(
                f"the classifier was trained on images {self.shape}; these have shape"
                f" {tuple(images.shape[1:])}."
            )
        hidden = self.model.trunk(_encode(images))
        features = (hidden - self.model.feature_mean) * self.model.feature_scale
        return torch.cat([features, self.model.head(hidden)], 1)


def open_classifier(
    train: Source | None, held_out: Source | None, cache: Path | None
) -> TaskClassifier:
    """The classifier of this data, trained unless ``cache`` remembers it; trained on the CPU.

    Its seed is fixed: the same images and labels give the same weights on the same machine.
    """
    if train is None or held_out is None or not (train.classes and held_out.classes):
        raise UserError(
            "the extractor classifier is trained on class labels, which this data set does not"
            " have: set data.source.labels to true if its files have them, or choose another"
            " extractor."
        )
    require_held_out(held_out, "the extractor classifier")
    images, labels = _load(train, "Reading training images")
    epochs = recipe.default_epochs(len(images))
    settings = {
        "format": FORMAT,
        "images": hashlib.sha256(images.numpy().tobytes()).hexdigest(),
        "labels": hashlib.sha256(labels.numpy().tobytes()).hexdigest(),
        "shape": list(images.shape[1:]),
        "features": recipe.FEATURES,
        "variance": recipe.TOTAL_VARIANCE,
        "epochs": epochs,
        "quantisation": QUANTISATION,
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    file = (cache or default_cache_dir()) / f"classifier-{key}.safetensors"
    if remembered := _recall(file, settings):
        return remembered
    with progress("Training the classifier (epochs)", epochs) as tell:
        trained = train_classifier(
            _encode(images),
            labels,
            held_out=_encoded(held_out),
            epochs=epochs,
            on_epoch=lambda epoch, _: tell(epoch),
        )
    settings["held_out_accuracy"] = trained.held_out_accuracy
    state = {k: v.contiguous() for k, v in trained.model.state_dict().items()}
    # One key: safetensors writes several in no fixed order, and the file's hash is the digest.
    metadata = {"energydiff": json.dumps(settings, sort_keys=True)}
    write_whole(file, safetensors.torch.save(state, metadata))
    shape = tuple(images.shape[1:])
    return TaskClassifier(trained.model, shape, digest_file(file), trained.held_out_accuracy)


def _recall(file: Path, settings: dict[str, Any]) -> TaskClassifier | None:
    """The classifier in the file; None if there is none, or it is damaged."""
    try:
        with safetensors.safe_open(file, "pt") as opened:
            described = json.loads(opened.metadata()["energydiff"])
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        accuracy = described.pop("held_out_accuracy")
        if described != settings:
            return None
        shape = tuple(settings["shape"])
        model = Classifier(shape, len(state["head.1.bias"]))
        model.load_state_dict(state)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError):
        return None
    return TaskClassifier(model, shape, digest_file(file), accuracy)


def _encode(images: Tensor) -> Tensor:
    """uint8 images in model coordinates, as the Normalization of 0..255 has them."""
    return images.float() / 127.5 - 1


def _encoded(source: Source) -> tuple[Tensor, Tensor]:
    images, labels = _load(source, "Reading held-out images")
    return _encode(images), labels


def _load(source: Source, task: str) -> tuple[Tensor, Tensor]:
    """All images (N, C, H, W) uint8 and labels (N,) of a source."""
    images, labels = zip(*image_batches(source, task), strict=True)
    return torch.cat(images), torch.cat(labels)
