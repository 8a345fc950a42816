"""Latents of a pair of modules from outside: encoded, trained on, sampled, shown and measured."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import energydiff
from energydiff.data import Arrays, Digits
from energydiff.evaluation import classifier
from energydiff.sampling import Euler, karras_sigmas

HERE = Path(__file__).parent
IMPORT = ("--import", HERE / "pair.py")
FEW = ("--steps", 4, "--accelerator", "cpu")
MODEL = """
seed_everything: 0
model:
  parametrization: inner_product
  backbone: {class_path: energydiff.potentials.MLP, init_args: {width: 64, depth: 2}}
  sigma_min: 0.02
  sigma_max: 20.0
  total_images: 12800
  warmup_images: 640
finish: {evaluations: 256}
ema: {halflife_images: 640}
monitor: {every_images: 12800, samples: 4, steps: 2, calibration_evaluations: 64}
val_every_images: 12800
trainer: {accelerator: cpu}
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained pair."""
    sys.path.append(str(HERE))
    from pair import train

    folder = tmp_path_factory.mktemp("pair")
    error = train(Digits().open().train.clean(), folder)
    assert error < 0.05  # of images from -1 to 1: they are recognised
    (folder / "model.yaml").write_text(MODEL)
    return folder


def options(pair: Path, file: str = "latents.npy") -> list[object]:
    return [
        *("--data.source", "Arrays", "--data.source.root", pair / file),
        *("--data.source.layout", "CHW", "--data.source.standardize", "true"),
        *("--data.source.decoder", "pair.Decoder"),
        *("--data.source.decoder.weights", pair / "decoder.pt"),
    ]


@pytest.fixture
def run(door, pair: Path) -> Path:
    """Encoded and trained once; the folder of the run."""
    folder = pair / "run"
    if not folder.exists():
        digits = ("--source", "Digits", "--source.labels", "true")
        encoder = ("--encoder", "pair.Encoder", "--encoder.weights", pair / "encoder.pt")
        out = ("--out", pair / "latents.npy")
        done = door("encode", *IMPORT, *digits, *encoder, *out)
        assert done.code == 0, done.err
        done = fit(door, pair)
        assert done.code == 0, done.err
    return folder


def fit(door, pair: Path, *more: object):  # type: ignore[no-untyped-def]
    place = ("--trainer.default_root_dir", pair / "run")
    return door("fit", "--config", pair / "model.yaml", *IMPORT, *options(pair), *place, *more)


def test_latents_are_those_of_the_encoder_and_keep_their_classes(run: Path, pair: Path) -> None:
    from pair import Encoder

    train, held_out = Digits(labels=True).open()
    images = torch.cat([train.clean(), held_out.clean()])
    with torch.no_grad():
        expected = Encoder(pair / "encoder.pt")(images).numpy()
    found = np.load(pair / "latents.npy")
    # The encoder saw what a file holds: images of 256 levels.
    np.testing.assert_allclose(found, expected, atol=0.1)
    ours = Arrays(pair / "latents.npy", labels=True, layout="CHW").open().train
    labels = np.concatenate([train.labels, held_out.labels])
    assert ours.classes == tuple(str(digit) for digit in range(10))
    assert all(ours.labels == labels[list(map(int, ours.names))])


def test_a_run_keeps_the_moments_and_its_monitor_shows_images(run: Path, pair: Path) -> None:
    train, _ = Arrays(pair / "latents.npy", layout="CHW", standardize=True).open()
    x = train.clean()
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(2), atol=1e-3, rtol=0)
    for model in (run, run / "export"):
        assert energydiff.open_model(model).normalization.moments == train.normalization.moments
    recorded = energydiff.open_model(run).config["data"]["source"]["init_args"]["standardize"]
    assert recorded == [list(values) for values in train.normalization.moments]
    (grid,) = (run / "samples").glob("*.png")
    assert Image.open(grid).size == (2 * 64 + 2, 2 * 64 + 2)  # 8×8 enlarged, not 4×4


def test_a_run_goes_on_with_its_moments_whatever_was_added_to_the_data(
    door, run: Path, pair: Path
) -> None:
    kept = np.load(pair / "latents.npy")
    before = energydiff.open_model(run).normalization.moments
    try:
        np.save(pair / "latents.npy", np.concatenate([kept, kept[:200] + 1]))
        done = fit(door, pair, "--model.total_images", 12864)
    finally:
        np.save(pair / "latents.npy", kept)
    assert done.code == 0, done.err
    assert energydiff.open_model(run).normalization.moments == before


def test_samples_are_images_and_need_the_decoder_to_be_named(
    door, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ("--out", tmp_path / "out", "-n", 6)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "pair")
        assert energydiff.load(run / "export").shape == (2, 4, 4)  # imports nothing
        done = door("sample", run / "export", *out, *FEW)
    assert done.code == 2 and not (tmp_path / "out").exists()
    assert "pair.Decoder, and the module pair has not been imported" in done.err
    assert "add --import pair" in done.err
    done = door("sample", run / "export", *IMPORT, *out, *FEW)
    assert done.code == 0, done.err
    with np.load(tmp_path / "out/samples.npz") as arrays:
        latents, raw, images = (arrays[name] for name in ("samples", "raw", "images"))
    assert latents.shape == raw.shape == (6, 2, 4, 4) and images.shape == (6, 8, 8, 1)
    normalization = energydiff.open_model(run).normalization
    assert np.array_equal(normalization.to_uint8(torch.from_numpy(latents))[:, 0], images[..., 0])
    first = np.asarray(Image.open(tmp_path / "out/images/000000.png"))
    assert np.array_equal(first, images[0, ..., 0])
    assert (tmp_path / "out/grid.png").is_file()


def test_images_are_measured_and_shown_on_the_page(
    door, run: Path, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "SHOWN_IMAGES", 3_000)
    few = ("-n", 100, "--blocks", 2, "--accelerator", "cpu", "--store", tmp_path, *IMPORT)
    classes = ("--data.source.labels", "true", "--data.extractor", "classifier")
    done = door("evaluate", "fid", run, *few, "--steps", 6, *classes)
    assert done.code == 0, done.err
    (file,) = tmp_path.glob("fid_*.json")
    decoded = json.loads(file.read_text())["quality"]["frechet"]
    images = ("--data", "configs/data/digits.yaml")
    done = door("evaluate", "fid", run, *few, "--steps", 6, *images)
    assert done.code == 0, done.err
    (other,) = set(tmp_path.glob("fid_*.json")) - {file}
    # Real and decoded digits are nearly the same reference, in features of two classifiers.
    assert 0.3 < json.loads(other.read_text())["quality"]["frechet"] / decoded < 3
    done = door("evaluate", "report", run, *few, "--steps", 4, "--out", tmp_path / "page.html")
    assert done.code == 0, done.err
    assert (tmp_path / "page.html").read_text().count("data:image/png;base64") > 16


def test_samples_of_a_notebook_are_images_too(run: Path) -> None:
    saved = energydiff.open_model(run)
    sampler = Euler(karras_sigmas(4, *saved.denoiser.noise), final_denoise=True)
    result = sampler(saved.denoiser, seeds=range(4))
    assert energydiff.data.image_grid(result.samples, saved.normalization).size == (130, 130)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--data.source.decoder.weights", "nowhere.pt"), "nowhere.pt"),
        (("--data.source.decoder", "torch.nn.Identity"), "Identity makes no images of samples"),
        (("--data.source.standardize", "[[0.0], [1.0]]"), "samples of 2 channels, of means"),
        (("--data.source.standardize", "[[0, 0], [1, -1]]"), "deviations above 0"),
    ],
)
def test_what_does_not_fit_is_said_before_training(
    door, run: Path, pair: Path, change: tuple[str, str], message: str, tmp_path: Path
) -> None:
    place = ("--trainer.default_root_dir", tmp_path / "run")
    config = ("--config", pair / "model.yaml")
    done = door("fit", *config, *IMPORT, *options(pair), *change, *place)
    assert done.code == 2 and message in done.err and "Traceback" not in done.err
    assert not (tmp_path / "run").exists()


def test_the_help_does_not_list_every_module_there_is(door) -> None:  # type: ignore[no-untyped-def]
    for help_text in (("encode", "--help"), ("fit", "--data.source.help", "Arrays")):
        told = " ".join(door(*help_text).out.split())
        assert "type: Module" in told and "torch.nn" not in told


def test_latents_are_not_completed(door, run: Path, pair: Path, tmp_path: Path) -> None:
    place = ("--trainer.default_root_dir", tmp_path / "run")
    config = ("--config", "configs/digits/completion.yaml")
    done = door("complete", "fit", *config, *IMPORT, *options(pair), *place)
    assert done.code == 2 and "complete fills in pixels" in done.err


def test_an_encoder_that_fails_leaves_nothing(door, tmp_path: Path) -> None:
    class Broken(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.log()

    from energydiff.cli.encode import encode

    for encoder, message in (
        (Broken(), "Broken makes latents that are not finite"),
        (nn.Conv2d(3, 4, 1), r"Conv2d makes no latents of images \(1, 8, 8\)"),
    ):
        with pytest.raises(energydiff.UserError, match=message):
            encode(Digits(), encoder, tmp_path / "latents.npy")
    assert not any(tmp_path.iterdir())


def test_the_autoencoder_of_diffusers_as_documented(
    door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=16,
    )
    vae.save_pretrained(tmp_path / "vae")
    page = (HERE.parents[1] / "docs" / "latents.md").read_text()
    (module,) = re.findall(r"vae\.py\"\)\.write_text\(\'\'\'\n(.*?)\'\'\'\)", page, re.DOTALL)
    (tmp_path / "vae.py").write_text(module)
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "images" / f"{i:02d}.png")
    images = ("--source", "Folder", "--source.root", tmp_path / "images")
    encoder = ("--encoder", "vae.Encoder", "--encoder.folder", tmp_path / "vae")
    out = ("--out", tmp_path / "latents.npy")
    monkeypatch.setattr(sys, "path", [*sys.path])
    done = door("encode", "--import", tmp_path / "vae.py", *images, *encoder, *out)
    assert done.code == 0, done.err
    assert np.load(tmp_path / "latents.npy").shape == (24, 4, 8, 8)
    decoder = sys.modules.pop("vae").Decoder(str(tmp_path / "vae"))
    options = {"layout": "CHW", "standardize": True, "decoder": decoder}
    train = Arrays(tmp_path / "latents.npy", **options).open().train
    assert energydiff.data.image_grid(train.clean(4), train.normalization, gap=0).size == (128, 128)
