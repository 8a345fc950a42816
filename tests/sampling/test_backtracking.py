"""Backtracking on parabolas ½λx², where a step η down λx ends lower exactly if η < 2/λ."""

import torch
from torch import Tensor
from torch.testing import assert_close

from energydiff.sampling.backtracking import backtrack

LAMBDA = torch.tensor([1.0, 3.0, 5.0, 40.0], dtype=torch.float64)
X = torch.ones(4, 1, dtype=torch.float64)
VALUE = LAMBDA / 2


def value(x: Tensor, rows: Tensor) -> Tensor:
    return 0.5 * LAMBDA[rows] * x[:, 0] ** 2


def same(step: Tensor) -> Tensor:
    return VALUE


def test_a_step_is_halved_until_it_is_short_enough_for_its_own_sample() -> None:
    found = backtrack(value, same, X, VALUE, LAMBDA[:, None], 1.0)
    assert found.step.tolist() == [1, 1 / 2, 1 / 4, 1 / 32]
    assert found.refused.tolist() == [0, 1, 2, 5]
    assert_close(found.x[:, 0], 1 - found.step * LAMBDA)
    assert_close(found.value, value(found.x, torch.arange(4)))


def test_who_finds_no_step_stays_and_who_may_not_move_is_not_asked() -> None:
    rows = torch.tensor([0, 3])
    found = backtrack(value, same, X, VALUE, LAMBDA[:, None], 1.0, rows=rows, proposal=X, tries=3)
    assert found.refused.tolist() == [0, 0, 0, 0]  # a proposal that stays is no higher
    found = backtrack(value, same, X, VALUE, LAMBDA[:, None], 1.0, rows=rows, tries=3)
    assert found.refused.tolist() == [0, 0, 0, 3]
    assert found.step[3] == 0 and found.x[3] == 1 and found.value[3] == VALUE[3]


def test_a_refused_proposal_gives_way_to_a_step_downhill() -> None:
    """Even one whose value is no number."""
    proposal = torch.tensor([[9.0], [0.0], [torch.nan], [0.0]], dtype=torch.float64)
    found = backtrack(value, same, X, VALUE, LAMBDA[:, None], 0.3, proposal=proposal, retry=1.0)
    assert found.step.tolist() == [0.3] * 4 and found.refused.tolist() == [1, 0, 1, 0]
    assert_close(found.x[:, 0], torch.tensor([0.7, 0.0, -0.5, 0.0], dtype=torch.float64))
