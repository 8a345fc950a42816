"""Numbers of independent float64 implementations (shared/reference), reproduced."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.memory import TinyBrain, relax
from energydiff.memory import lagrangians as lag

with np.load(Path(__file__).with_name("associative_memory.npz")) as archive:
    REFERENCE = {name: torch.from_numpy(archive[name]) for name in archive.files}

LAGRANGIANS = {
    "identity": lag.Identity(),
    "repu3": lag.Repu(3),
    "relu": lag.Repu(2),
    "exp": lag.Exp(),
    "rexp": lag.Rexp(),
    "tanh": lag.Tanh(1.7),
    "sigmoid": lag.Sigmoid(1.7),
    "softmax": lag.Softmax(1.7),
    "layernorm_gamma1.3": lag.LayerNorm(1.3, REFERENCE["delta"]),
}


def same(actual: Tensor, expected: Tensor) -> None:
    assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_every_reference_lagrangian_is_compared() -> None:
    assert {f"lagrangian_{n}" for n in LAGRANGIANS} == {n for n in REFERENCE if "lagrangian" in n}


@pytest.mark.parametrize("name", LAGRANGIANS)
def test_lagrangian(name: str) -> None:
    x, lagrangian = REFERENCE["x"], LAGRANGIANS[name]
    same(lagrangian(x), REFERENCE[f"lagrangian_{name}"])
    same(lagrangian.activation(x), REFERENCE[f"activation_{name}"])


def test_two_layers_for_fifty_steps() -> None:
    network = TinyBrain(REFERENCE["W"], visible=lag.Tanh(), memory=lag.Softmax())
    start = {"v": REFERENCE["v"][None], "m": REFERENCE["m"][None]}
    result = relax(network, start, dt=0.1, steps=50, tolerance=0.0)
    same(result.trace.energy[:50, 0], REFERENCE["energies_50_steps_dt0.1"])
    same(result.states["v"][0], REFERENCE["v_final"])
    same(result.states["m"][0], REFERENCE["m_final"])
