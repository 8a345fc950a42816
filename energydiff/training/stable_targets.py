"""What the training data say of their own posterior mean, exactly (Xu et al. 2023)."""

import math

import torch

from energydiff.data.source import STACK_BYTES
from energydiff.diffusion import Teacher
from energydiff.energies import EmpiricalData
from energydiff.errors import UserError
from energydiff.training.data import DiffusionData


def exact_mean(data: object) -> Teacher:
    """Of all samples that a pass of training takes, and of their mirror images where it mirrors.

    Every device holds them all and is asked for a softmax over all of them at every step.

    Raises:
        UserError: the data are no ``DiffusionData``, have classes, or are too many to hold.
    """
    if not isinstance(data, DiffusionData):
        raise UserError(
            "model.stable_targets takes all training samples from a DiffusionData: give the"
            " trainer one, or leave it out."
        )
    if data.num_classes:
        raise UserError(
            "model.stable_targets is the mean over all training samples, of whatever class: leave"
            " data.source.labels out, or model.stable_targets."
        )
    source = data.train_source.select(data.train_source.places)
    size = 4 * len(source) * math.prod(source.shape) * (2 if data.flip else 1)
    if size > STACK_BYTES:
        raise UserError(
            f"model.stable_targets holds all training samples, which here are {size / 2**20:,.1f}"
            f" MiB, and at most {STACK_BYTES / 2**20:,.1f} MiB are held: leave it out, or train on"
            " fewer by data.subset."
        )
    points = source.clean()
    return Teacher(EmpiricalData(torch.cat([points, points.flip(-1)]) if data.flip else points))
