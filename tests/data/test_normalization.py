import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from energydiff.data import Normalization
from energydiff.errors import UserError

numbers = st.floats(-1e4, 1e4, width=32)


@given(low=numbers, width=st.floats(0.125, 1e4, width=32), share=st.floats(-0.5, 1.5))
def test_decode_is_the_inverse_of_encode(low: float, width: float, share: float) -> None:
    normalization = Normalization(low, low + width)
    raw = torch.tensor([low, low + width, low + share * width])
    x = normalization.encode(raw)
    # The error of float32 at the size of the raw values, as a share of the range.
    error = 1e-6 * (abs(low) + width)
    torch.testing.assert_close(x[:2], torch.tensor([-1.0, 1.0]), atol=4 * error / width, rtol=0)
    torch.testing.assert_close(normalization.decode(x), raw, atol=4 * error, rtol=0)


def test_every_byte_survives_the_round_trip() -> None:
    raw = torch.arange(256, dtype=torch.uint8)
    normalization = Normalization(0, 255)
    x = normalization.encode(raw)
    assert x.dtype == torch.float32
    assert torch.equal(normalization.to_uint8(x), raw)
    assert torch.equal(normalization.decode(x).round().to(torch.uint8), raw)


def test_uint8_is_clamped() -> None:
    shown = Normalization(0, 16).to_uint8(torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]))
    assert shown.tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("bounds", [(1, 1), (2, 1), (0, np.inf), (np.nan, 1)])
def test_a_range_must_have_a_width(bounds: tuple[float, float]) -> None:
    with pytest.raises(UserError, match=r"data\.source\.value_range"):
        Normalization(*bounds)
