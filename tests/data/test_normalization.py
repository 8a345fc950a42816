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


MOMENTS = ((3.0, -1.0), (0.5, 4.0))


def test_moments_standardise_each_channel_and_back() -> None:
    normalization = Normalization(-9, 11, MOMENTS)
    x = torch.randn(5, 2, 4, 3)
    raw = normalization.decode(x)
    torch.testing.assert_close(raw[:, 0], 3 + 0.5 * x[:, 0])
    torch.testing.assert_close(raw[:, 1], 4 * x[:, 1] - 1)
    torch.testing.assert_close(normalization.encode(raw), x)
    torch.testing.assert_close(normalization.encode(raw[2]), x[2])  # one sample


def test_standardised_images_are_shown_as_they_are() -> None:
    raw = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    normalization = Normalization(0, 255, ((120.0, 100.0, 7.0), (60.0, 50.0, 3.0)))
    assert torch.equal(normalization.to_uint8(normalization.encode(raw)), raw)
    assert normalization.picture_shape((3, 5, 5)) == (3, 5, 5)
    assert normalization.picture_shape((4, 5, 5)) is None


def test_the_reach_of_data_is_in_model_coordinates() -> None:
    assert Normalization(-3, 40).reach == 1
    normalization = Normalization(-9, 11, MOMENTS)
    ends = normalization.encode(torch.tensor([-9.0, 11.0])[:, None, None, None].expand(2, 2, 1, 1))
    assert normalization.reach == pytest.approx(float(ends.abs().max()))


@pytest.mark.parametrize(
    "moments",
    [
        ((0.0,), (0.0,)),
        ((0.0,), (-1.0,)),
        ((0.0, 1.0), (1.0,)),
        ((), ()),
        ((float("nan"),), (1.0,)),
    ],
)
def test_moments_that_standardise_nothing_are_refused(moments) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=r"standardise nothing.*data\.source\.standardize"):
        Normalization(0, 1, moments)
