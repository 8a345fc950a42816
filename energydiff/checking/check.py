"""A whole check of a model."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from energydiff.checking.measures import (
    Finding,
    States,
    answers,
    measure_reference,
    measure_way,
)
from energydiff.checking.ways import ways_of
from energydiff.derivatives import differentiable
from energydiff.potentials.check import InDouble
from energydiff.saving import SavedModel

REFERENCE = 1e-4  # of differences in float64, also over kinks of the second derivative
LEVELS = 4
SIGMAS = (0.05, 5.0)  # of a closed form, which has no range of its own


@dataclass(frozen=True)
class Checked:
    """What was found of one way.

    Attributes:
        way: its name.
        findings: empty where it was not taken.
        why: it was not taken, or could not be, which is a failure.
    """

    way: str
    findings: tuple[Finding, ...] = ()
    why: str = ""
    failed: bool = False

    @property
    def holds(self) -> bool:
        """Nothing that was looked at is wrong."""
        return not self.failed and all(finding.holds for finding in self.findings)


def check(
    model: SavedModel, device: torch.device | str = "cpu", compiled: bool = True
) -> Iterator[Checked]:
    """One way after another; the first is the reference, in float64 on the CPU.

    Args:
        model: its energy is copied, and left alone.
        device: of the other ways.
        compiled: whether the compiled ones are among them, which take minutes.

    Raises:
        NoEnergyError: the model has none.
    """
    energy = model.denoiser.require_energy()
    low, high = energy.noise or SIGMAS
    sigmas = np.geomspace(low, high, LEVELS).tolist()
    states = States.of(energy, sigmas, scale=getattr(energy, "sigma_data", 1.0))
    exact = copy.deepcopy(energy).cpu().double().eval().requires_grad_()
    with differentiable(torch.device("cpu"), autocast=False), InDouble():
        reference = answers(exact, states, learning=True)
        findings = measure_reference(exact, states, reference, REFERENCE)
    yield Checked("float64", tuple(findings))
    ways, left_out = ways_of(model, torch.device(device), compiled)
    for way in ways:
        try:
            with way.scope(), torch.enable_grad():
                mine = answers(way.make(), states, way.learning)
        except (RuntimeError, ValueError) as error:  # of a kernel, or a UserError of ours
            yield Checked(way.name, why=" ".join(str(error).split())[:300], failed=True)
            continue
        yield Checked(way.name, tuple(measure_way(mine, reference, way.tolerance)))
    for name, why in left_out.items():
        yield Checked(name, why=why)
