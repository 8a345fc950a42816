"""What is taken of a source at once, and what it takes to do so."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from energydiff.data import Normalization, Source
from energydiff.data import source as module
from energydiff.training.data import _estimate_sigma_data

SHAPE = (3, 64, 64)
SAMPLE_BYTES = 4 * math.prod(SHAPE)


class Made(Source):
    """Samples made when they are asked for, of bytes."""

    def __init__(self, count: int) -> None:
        super().__init__(SHAPE, Normalization(0, 255), [str(i) for i in range(count)])

    def _read(self, i: int) -> Tensor:
        draws = torch.Generator().manual_seed(int(self._rows[i]))
        return torch.randint(0, 256, SHAPE, generator=draws, dtype=torch.uint8)


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that anything made."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self.bytes = max(self.bytes, leaf.untyped_storage().nbytes())
        return made


def test_the_rms_is_measured_one_sample_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Made(50)
    expected = source.clean().double().square().mean().sqrt().item()
    with Largest() as largest:
        assert _estimate_sigma_data(source) == pytest.approx(expected, abs=1e-6)
    assert largest.bytes <= 2 * SAMPLE_BYTES  # one, in float64
    monkeypatch.setattr("energydiff.training.data.SIGMA_DATA_SAMPLES", 7)
    expected = source.clean(7).double().square().mean().sqrt().item()
    assert _estimate_sigma_data(source) == pytest.approx(expected, abs=1e-6)


def test_a_stack_is_of_fewer_samples_where_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Made(50)
    monkeypatch.setattr(module, "STACK_BYTES", 10 * SAMPLE_BYTES + 5)
    with Largest() as largest:
        clean = source.clean(40)
    assert largest.bytes == 10 * SAMPLE_BYTES  # nothing beside it is as large
    assert torch.equal(clean, source.spread(10).clean())
    assert len(source.clean(8)) == 8
    assert len(source.clean()) == 50  # all are asked for
    monkeypatch.setattr(module, "STACK_BYTES", 1)
    assert len(source.clean(40)) == 1


def test_long_reading_is_told_by_the_first_rank(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("energydiff.progress.LINE_SECONDS", 0)
    Made(3).clean(2)
    Made(3).mean_square(3)
    told = capsys.readouterr().err.splitlines()
    assert "Reading samples: 2 of 2" in told
    assert "Measuring the data's RMS: 3 of 3" in told
    monkeypatch.setenv("LOCAL_RANK", "1")
    Made(3).clean(2)
    assert capsys.readouterr().err == ""
