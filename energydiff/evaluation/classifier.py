"""A small classifier of the task's own images, whose last hidden layer measures samples.

It trains in seconds, offline, on the training set at hand. Its 64 features feed
``frechet_distance``. They are standardised on that training set to a total variance of 1,000, so a
distance reads in thousandths of what the training images vary, whatever the seed. Dropout and
smoothed labels keep the features from collapsing onto the classes, which would leave them blind to
how an image of a class looks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from energydiff.errors import UserError

FEATURES = 64
TOTAL_VARIANCE = 1000.0
SHOWN_IMAGES = 22_500


class Classifier(nn.Module):
    """Images (B, C, H, W) in model coordinates to logits (B, classes).

    Strided convolutions halve the image until it is at most 4 pixels to a side.

    Args:
        shape: of one image, (C, H, W).
        classes: number of classes.
        width: channels of the convolutions.
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, shape: tuple[int, ...], classes: int, width: int = 64) -> None:
        super().__init__()
        if len(shape) != 3:
            raise UserError(f"the classifier reads images (C, H, W), not samples of shape {shape}.")
        channels, height, width_in = shape
        layers: list[nn.Module] = [*_convolution(channels, width, stride=1)]
        while max(height, width_in) > 4:
            layers += _convolution(width, width, stride=2)
            height, width_in = math.ceil(height / 2), math.ceil(width_in / 2)
        self.trunk = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(width * height * width_in, FEATURES), nn.SiLU()
        )
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(FEATURES, classes))
        self.register_buffer("feature_mean", torch.zeros(FEATURES))
        self.register_buffer("feature_scale", torch.ones(FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))

    @torch.no_grad()
    def standardise(self, images: Tensor) -> None:
        """Give the features of these images (N, C, H, W) mean 0 and equal variances."""
        self.feature_mean.zero_()
        self.feature_scale.fill_(1)
        hidden = features(self, images)
        std = hidden.std(0)
        std = std.clamp_min(0.01 * std.max())  # a feature that hardly varies is not blown up
        self.feature_mean.copy_(hidden.mean(0))
        self.feature_scale.copy_((TOTAL_VARIANCE / FEATURES) ** 0.5 / std)


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier and the share of held-out images that it names rightly, 0 to 1."""

    model: Classifier
    held_out_accuracy: float


def train_classifier(
    images: Tensor,
    labels: Tensor,
    *,
    held_out: tuple[Tensor, Tensor],
    seed: int = 0,
    epochs: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    on_epoch: Callable[[int, float], None] | None = None,
) -> TrainedClassifier:
    """Train with AdamW and a cosine schedule; on a CPU the same seed gives the same weights.

    Args:
        images: training images (N, C, H, W), float32 in model coordinates, about [-1, 1].
        labels: their classes (N,), integers from 0.
        held_out: images and labels that only measure accuracy.
        epochs: passes over the images; by default some 22,500 images are shown, in two or more.
        on_epoch: called with (epochs done, mean training loss in nats).

    Raises UserError for images without labels, or of a single class.
    """
    classes = _count_classes(labels, held_out[1])
    epochs = epochs or default_epochs(len(images))
    devices = [images.device] if images.is_cuda else []
    with torch.random.fork_rng(devices), torch.enable_grad():  # callers may be sampling
        torch.manual_seed(seed)
        model = Classifier(tuple(images.shape[1:]), classes).to(images.device)
        _fit(model, images, labels, epochs, batch_size, learning_rate, on_epoch)
    model.eval().requires_grad_(False)
    model.standardise(images)
    return TrainedClassifier(model, accuracy(model, *held_out))


def default_epochs(count: int) -> int:
    """Passes over ``count`` images that show some 22,500, in two or more."""
    return max(2, round(SHOWN_IMAGES / count))


@torch.no_grad()
def features(model: Classifier, images: Tensor, batch: int = 512) -> Tensor:
    """Standardised features (N, 64), float32, of images (N, C, H, W) in model coordinates."""
    hidden = torch.cat([model.trunk(part) for part in images.float().split(batch)])
    return (hidden - model.feature_mean) * model.feature_scale


@torch.no_grad()
def accuracy(model: Classifier, images: Tensor, labels: Tensor, batch: int = 512) -> float:
    """Share of the images (N, C, H, W) whose class (N,) the model names, 0 to 1."""
    guesses = torch.cat([model(part).argmax(1) for part in images.float().split(batch)])
    return float((guesses == labels).double().mean())


def _fit(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    on_epoch: Callable[[int, float], None] | None,
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05)
    steps = epochs * math.ceil(len(images) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(1, epochs + 1):
        total = 0.0
        for rows in torch.randperm(len(images)).to(images.device).split(batch_size):
            logits = model(images[rows])
            loss = nn.functional.cross_entropy(logits, labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        if on_epoch is not None:
            on_epoch(epoch, total / len(images))


def _count_classes(*parts: Tensor) -> int:
    labels = torch.cat(parts)
    if min(len(part) for part in parts) == 0 or int(labels.min()) < 0:
        raise UserError(
            "the classifier needs images with class labels to train on and to be held out."
        )
    classes = int(labels.max()) + 1
    if classes < 2:
        raise UserError("the classifier needs images of at least two classes.")
    return classes


def _convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()]
