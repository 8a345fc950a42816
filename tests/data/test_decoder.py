import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from energydiff.data import Arrays, Normalization, image_grid
from energydiff.data.decoder import BATCH, Decoder
from energydiff.errors import UserError
from energydiff.evaluation.candidate import Quantised, blur
from energydiff.evaluation.extractors import Extractor

MOMENTS = ((0.0, 1.0, 2.0, 3.0), (1.0, 2.0, 3.0, 4.0))


def upsampling() -> Decoder:
    torch.manual_seed(0)
    return Decoder(nn.Sequential(nn.Conv2d(4, 12, 1), nn.PixelShuffle(2), nn.Dropout(0.5)))


def test_images_are_those_of_the_module_whatever_the_batch() -> None:
    decoder, x = upsampling(), torch.randn(BATCH + 3, 4, 5, 5)
    images = decoder(x)
    assert images.shape == (BATCH + 3, 3, 10, 10) and not images.requires_grad
    torch.testing.assert_close(images[BATCH:], decoder(x[BATCH:]))
    torch.testing.assert_close(images, decoder.module(x))
    assert decoder.shape_of((4, 5, 5)) == (3, 10, 10)
    assert not any(p.requires_grad or p.grad is not None for p in decoder.module.parameters())


def test_pictures_of_samples_are_decoded_raw_values() -> None:
    normalization, x = Normalization(-9, 9, MOMENTS, upsampling()), torch.randn(5, 4, 6, 6)
    assert normalization.decoder is not None
    images = normalization.decoder(normalization.decode(x))
    torch.testing.assert_close(normalization.to_picture(x), images)
    assert normalization.to_uint8(x).shape == (5, 3, 12, 12)
    assert image_grid(x, normalization, columns=5, gap=0).size == (5 * 60, 60)
    with pytest.raises(UserError, match="not images"):
        image_grid(x, Normalization(-9, 9, MOMENTS))


def test_a_copy_shares_the_module_and_another_process_has_its_own() -> None:
    decoder, x = upsampling(), torch.randn(2, 4, 3, 3)
    assert copy.deepcopy(Normalization(0, 1, None, decoder)).decoder is decoder
    torch.testing.assert_close(pickle.loads(pickle.dumps(decoder))(x), decoder(x))


def test_the_digest_knows_the_weights() -> None:
    first, second = upsampling(), upsampling()
    assert first.digest == second.digest
    other = upsampling()
    with torch.no_grad():
        next(other.module.parameters()).add_(1e-3)
    assert other.digest != first.digest


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Identity(), r"Identity makes no images of samples \(4, 3, 3\)"),
        (nn.Conv2d(7, 3, 1), r"Conv2d makes no images of samples \(4, 3, 3\)"),
        (nn.Flatten(), "Flatten makes no images"),
    ],
)
def test_a_module_that_makes_no_images_is_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Decoder(module).shape_of((4, 3, 3))


def test_a_recorded_one_is_built_when_it_is_asked_for_and_of_modules_alone() -> None:
    recorded = {"class_path": "torch.nn.Conv2d", "init_args": {"in_channels": 4, "out_channels": 3}}
    lacking = Decoder(recorded)
    with pytest.raises(UserError, match="missing a required argument: 'kernel_size'"):
        _ = lacking.module
    state = torch.random.get_rng_state()
    whole = Decoder({**recorded, "init_args": {**recorded["init_args"], "kernel_size": 1}})
    assert whole.shape_of((4, 2, 2)) == (3, 2, 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(UserError, match="no Module that can be imported"):
        _ = Decoder({"class_path": "pathlib.Path", "init_args": {}}).module
    with pytest.raises(UserError, match="a class_path and its init_args are needed"):
        _ = Decoder({}).module


def test_the_control_blurs_images_and_not_latents() -> None:
    class Pixels(Extractor):
        def __init__(self) -> None:
            super().__init__("pixels", "", "none", 3 * 144)
            self.register_buffer("place", torch.empty(0))

        def extract(self, images: Tensor) -> Tensor:
            return images.flatten(1).float()

    normalization, x = Normalization(-9, 9, MOMENTS, upsampling()), torch.randn(2, 4, 6, 6)
    found = Quantised(Pixels(), normalization, degraded=True)(x)
    pictures = normalization.to_picture(x)
    blurred = (blur(pictures) * 127.5 + 128).clamp(0, 255).floor().flatten(1)
    torch.testing.assert_close(found[:, 3 * 144 :], blurred)


def test_a_decoder_that_does_not_fit_is_refused_when_data_are_opened(
    tmp_path: Path,
) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(40, 4, 3, 3)))
    with pytest.raises(UserError, match="Conv2d makes no images"):
        Arrays(tmp_path / "a.npy", layout="CHW", decoder=nn.Conv2d(7, 3, 1)).open()
