"""Every large preset: a dry run of two steps at reduced width, and what docs/large.md says."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import energydiff
from benchmarks.large import (
    BASELINES,
    CONFIGS,
    SHAPES,
    count,
    main,
    make_fake,
    presets,
    table,
    training_step,
)
from energydiff.denoisers import build_denoiser
from energydiff.diffusion import DualScoreMatching
from energydiff.evaluation.cost import peak_bytes
from energydiff.potentials import EnergyTransformer, EnergyUNet

PAGE = (Path(__file__).parents[2] / "docs" / "large.md").read_text()
RANDOM = np.random.default_rng(0)
REDUCED = {
    "UNet": {"channels": 8, "head_width": 8},
    "EnergyUNet": {"channels": 8, "head_width": 8},
    "Transformer": {"width": 32, "heads": 4},
    "EnergyTransformer": {"width": 32, "heads": 4},
}
FEW = [
    *("--data.batch_size", 2, "--model.total_images", 4, "--data.num_workers", 0),
    *("--monitor.every_images", 0, "--val_every_images", 0),
    *("--finish.evaluations", 4, "--finish.images", 4, "--trainer.accelerator", "cpu"),
]


def settings(preset: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONFIGS / f"{preset}.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few samples of each kind, as a user has them."""
    folder = tmp_path_factory.mktemp("data")
    batches = folder / "cifar10" / "cifar-10-batches-bin"
    batches.mkdir(parents=True)
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        rows = RANDOM.integers(0, 256, (2, 3073), dtype=np.uint8)
        rows[:, 0] = 0, 1
        rows.tofile(batches / f"{name}.bin")
    (folder / "images64").mkdir()
    for i in range(24):
        pixels = RANDOM.integers(0, 256, (70, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images64" / f"{i}.png")
    latents = RANDOM.normal(2, 5, (20, 4, 32, 32)).astype(np.float32)
    np.save(folder / "latent32", latents)
    return folder


def test_presets_are_all_there() -> None:
    files = {str(f.relative_to(CONFIGS).with_suffix("")) for f in CONFIGS.rglob("*.yaml")}
    assert files - {f"{name}/base" for name in SHAPES} == {*presets()}


@pytest.mark.parametrize("preset", presets())
def test_two_steps_at_reduced_width(preset: str, data: Path, tmp_path: Path, door) -> None:
    name, _, _ = preset.partition("/")
    kind = settings(preset)["model"]["backbone"]["class_path"].rpartition(".")[2]
    configs = [("--config", CONFIGS / name / "base.yaml"), ("--config", CONFIGS / f"{preset}.yaml")]
    root = data / (f"{name}.npy" if name == "latent32" else name)
    small = [(f"--model.backbone.{option}", value) for option, value in REDUCED[kind].items()]
    pairs = [*configs, ("--data.source.root", root), *small]
    place = ("--trainer.default_root_dir", tmp_path / "run")
    done = door("fit", *(word for pair in pairs for word in pair), *FEW, *place)
    assert done.code == 0, done.err
    saved = energydiff.open_model(tmp_path / "run" / "export")
    assert tuple(saved.denoiser.shape) == SHAPES[name]
    assert (saved.denoiser.energy is not None) == preset.partition("/")[2].startswith("energy")
    assert (saved.normalization.moments is not None) == (name == "latent32")


@pytest.mark.slow
@pytest.mark.parametrize("preset", [p for p in presets() if p.partition("/")[2] in BASELINES])
def test_at_full_width_an_energy_takes_the_operations_of_its_baseline_and_the_page_says_so(
    preset: str,
) -> None:
    name, _, arm = preset.partition("/")
    pair = {p: count(p) for p in (f"{name}/{BASELINES[arm]}", preset)}
    baseline, energy = pair.values()
    assert 0.9 < energy.step / baseline.step < 1.1
    _, _, *rows = table(pair).splitlines()
    for row in rows:  # up to the batches, which the kernels of a version decide
        words = row.rsplit("|", 5)[0]
        assert words in PAGE, row


@pytest.mark.parametrize(
    "network",
    [lambda: EnergyUNet((3, 16, 16), 16, (1, 2)), lambda: EnergyTransformer((4, 16, 16), width=32)],
)
def test_tensors_without_values_take_the_memory_of_real_ones(network) -> None:  # type: ignore[no-untyped-def]
    def peak(model: nn.Module) -> int:
        return peak_bytes(training_step(model, DualScoreMatching(), 8, "cpu"), "cpu")

    real = build_denoiser(network(), 1.0, "scalar")
    for parameter in real.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with torch.device("meta"):
        fake = build_denoiser(network(), 1.0, "scalar")
    with FakeTensorMode():
        make_fake(fake)
        estimate = peak(fake)
    assert estimate == pytest.approx(peak(real), rel=0.01)


def test_the_page_has_a_row_for_every_preset() -> None:
    assert re.findall(r"^\| `(\w+/\w+)` \|", PAGE, re.MULTILINE) == presets()


@pytest.mark.slow
def test_real_steps_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    main(["latent32/energy_s", "--run", "--batch", "1", "--device", "cpu"])
    said = capsys.readouterr().out
    assert re.fullmatch(
        r"latent32/energy_s: \S+ images a second at 1 a step, 0\.\d\d GB beside .*\n", said
    )
