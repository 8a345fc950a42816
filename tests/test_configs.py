"""What the configurations claim of each other."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from energydiff import potentials
from energydiff.cli.complete import CompletionCLI
from energydiff.cli.distil import DistilCLI
from energydiff.cli.training import EnergyDiffCLI
from energydiff.denoisers import build_denoiser
from energydiff.diffusion import DenoisingScoreMatching, DualScoreMatching, NoisyBatch
from energydiff.evaluation.cost import operations

CONFIGS = Path(__file__).parents[1] / "configs"
OBJECTIVES = {
    None: DenoisingScoreMatching(),
    "energydiff.diffusion.DualScoreMatching": DualScoreMatching(),
}


def step_operations(config: dict[str, Any], shape: tuple[int, ...]) -> int:
    """Of the model's training step on one image."""
    model = config["model"]
    _, name = model["backbone"]["class_path"].rsplit(".", 1)
    objective = OBJECTIVES[model.get("objective")]
    network = getattr(potentials, name)(shape, **model["backbone"]["init_args"])
    denoiser = build_denoiser(network, 0.5, model["parametrization"])
    x0, noise = torch.randn(2, 1, *shape)
    batch = NoisyBatch(x0, torch.ones(1), noise, 0.5)

    def step() -> None:
        torch.stack([*objective(denoiser, batch).values()]).sum().backward()

    return operations(step)


@pytest.mark.parametrize(
    ("folder", "suffix", "shape"),
    [
        ("folder", "", (3, 64, 64)),
        ("folder", "_small", (3, 32, 32)),
        ("fashion_mnist", "", (1, 28, 28)),
        ("digits", "", (1, 8, 8)),
    ],
)
def test_an_energy_unet_differs_from_its_baseline_in_the_model_alone_and_costs_as_much(
    folder: str, suffix: str, shape: tuple[int, ...]
) -> None:
    energy, baseline = (
        yaml.safe_load((CONFIGS / folder / f"{arm}_unet{suffix}.yaml").read_text())
        for arm in ("energy", "baseline")
    )
    assert step_operations(energy, shape) <= 1.1 * step_operations(baseline, shape)
    for config in (energy, baseline):
        for key in ("parametrization", "objective", "backbone"):
            config["model"].pop(key, None)
        del config["trainer"]["default_root_dir"]
    assert energy == baseline


def test_no_energy_across_noise_needs_a_calibrated_gauge() -> None:
    """But the convex one, and memorisation, where one σ is looked at (docs/train.md)."""
    calibrated = set()
    for file in CONFIGS.rglob("*.yaml"):
        model = (yaml.safe_load(file.read_text()) or {}).get("model")
        if isinstance(model, dict) and "parametrization" in model:
            objective = model.get("objective")
            name = objective["class_path"] if isinstance(objective, dict) else objective
            if name is None and model["parametrization"] != "unconstrained":
                calibrated.add(str(file.relative_to(CONFIGS)))
    assert {name for name in calibrated if not name.startswith("memorisation/")} == {
        "digits/convex_mlp.yaml"
    }


@pytest.mark.parametrize("command", [EnergyDiffCLI, DistilCLI, CompletionCLI])
def test_examples_in_the_help_name_configurations_there_are(command: type[EnergyDiffCLI]) -> None:
    for example in command.examples:
        (name,) = re.findall(r"--config configs/(\S+)", example)
        assert (CONFIGS / name).is_file()
