"""A whole check of a model."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from energydiff.checking.measures import (
    Asked,
    Finding,
    States,
    answers,
    measure_reference,
    measure_way,
)
from energydiff.checking.ways import NotTaken, ways_of
from energydiff.derivatives import differentiable
from energydiff.errors import UserError
from energydiff.potentials.check import InDouble
from energydiff.progress import progress
from energydiff.saving import SavedModel

REFERENCE = 1e-4  # of differences in float64, also over kinks of the second derivative
LEVELS = 4
FAULTS = (RuntimeError, ValueError, UserError)  # of a kernel, or in a sentence of ours
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
    model: SavedModel,
    device: torch.device | str = "cpu",
    compiled: bool = True,
    sharded: bool = True,
) -> Iterator[Checked]:
    """One way after another; the first is the reference, in float64 on the CPU.

    Args:
        model: its energy is copied, and left alone.
        device: of the other ways.
        compiled: whether the compiled ones are among them, which take minutes.
        sharded: whether those of several processes are, which take seconds to start.

    Raises:
        NoEnergyError: the model has none.
    """
    energy = model.denoiser.require_energy()
    low, high = energy.noise or SIGMAS
    sigmas = np.geomspace(low, high, LEVELS).tolist()
    states = States.of(energy, sigmas, scale=getattr(energy, "sigma_data", 1.0))
    exact = copy.deepcopy(energy).cpu().double().eval().requires_grad_()
    ways, left_out = ways_of(model, torch.device(device), compiled, sharded)
    with progress("Ways looked at", 1 + len(ways)) as tell:
        try:
            with differentiable(torch.device("cpu"), autocast=False), InDouble():
                reference = answers(Asked(exact), states, learning=True)
                findings = measure_reference(exact, states, reference, REFERENCE)
        except FAULTS as error:
            yield _failed("float64", error)
            return
        yield Checked("float64", tuple(findings))
        for done, way in enumerate(ways, 1):
            tell(done)
            try:
                with way.scope(), torch.enable_grad():
                    mine = way.ask(Asked(way.make()), states, way.learning)
            except NotTaken as reason:
                yield Checked(way.name, why=str(reason))
            except FAULTS as error:
                yield _failed(way.name, error)
            else:
                yield Checked(way.name, tuple(measure_way(mine, reference, way.tolerance)))
    for name, why in left_out.items():
        yield Checked(name, why=why)


def _failed(way: str, error: Exception) -> Checked:
    return Checked(way, why=" ".join(str(error).split())[:300], failed=True)
