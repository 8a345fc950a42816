"""A run whose weights are shared out between two processes is the run whose weights are copied."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

Fit = Callable[..., Path]
TRANSFORMER = [
    "--model.parametrization=scalar",
    "--model.backbone=energydiff.potentials.EnergyTransformer",
    "--model.backbone.init_args.trunk=[convolution, feedforward, attention]",
    *("--model.backbone.init_args.width=16", "--model.backbone.init_args.heads=2"),
]
WATCHED = ["--val_every_images=160", "--monitor.every_images=160"]
UNWATCHED = ["--val_every_images=0", "--monitor.every_images=0"]


@pytest.fixture(scope="module")
def fit(process, tiny_mlp: Path, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    def run(strategy: str, images: int, *options: str, folder: Path | None = None) -> Path:
        folder = folder or tmp_path_factory.mktemp(strategy)
        arguments = ["--config", tiny_mlp, "--trainer.default_root_dir", folder, *options]
        arguments += ["--trainer.devices=2", f"--trainer.strategy={strategy}"]
        done = process("fit", *arguments, f"--model.total_images={images}")
        assert done.code == 0, done.err
        (folder / "out.txt").write_text(done.out + done.err)
        return folder

    return run


def tensors(run: Path) -> list[Tensor]:
    """Weights, averages and optimizer state of a run's checkpoint."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    parts = ("state_dict", "current_model_state", "optimizer_states")
    leaves = tree_leaves([checkpoint[part] for part in parts])
    return [leaf.double() for leaf in leaves if isinstance(leaf, Tensor)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ([], 1e-6),
        ([*TRANSFORMER, "--trainer.accumulate_grad_batches=2"], 1e-5),
        ([*TRANSFORMER, "--trainer.precision=bf16-mixed"], 1e-2),
    ],
    ids=["one part", "parts, accumulated", "parts, bfloat16"],
)
def test_weights_average_and_optimizer_are_those_of_ddp(
    options: list[str], tolerance: float, fit: Fit, metrics: Any
) -> None:
    """Ten steps, two looks, two held-out losses, the norm clipped in each step."""
    copied, cut = (fit(strategy, 320, *options, *WATCHED) for strategy in ("ddp", "fsdp2"))
    for expected, found in zip(tensors(copied), tensors(cut), strict=True):
        assert (found - expected).norm() <= tolerance * expected.norm().clamp_min(1e-12)
    expected, found = metrics(copied), metrics(cut)
    assert expected.keys() == found.keys()
    names = [name for name in expected if name.startswith(("val/", "lyapunov/V_s"))]
    assert len(names) > 4
    for name in names:
        assert found[name] == pytest.approx(expected[name], rel=10 * tolerance), name


@pytest.mark.slow
def test_a_run_in_parts_goes_on_and_its_files_are_those_of_any_run(
    fit: Fit, door, tmp_path: Path
) -> None:
    """Bit for bit in parts; on one device too; and it samples."""
    constant = [*TRANSFORMER, *UNWATCHED, "--model.schedule=constant"]
    whole = fit("fsdp2", 320, *constant)
    run = fit("fsdp2", 160, *constant)
    fit("fsdp2", 320, *constant, folder=run)
    for expected, found in zip(tensors(whole), tensors(run), strict=True):
        assert torch.equal(found, expected)
    done = door("sample", run, "--num_samples", 4, "--steps", 3, "--out", tmp_path / "samples")
    assert done.code == 0, done.err
    assert np.isfinite(np.load(tmp_path / "samples" / "samples.npz")["samples"]).all()
    fit("ddp", 384, *constant, folder=run)
    fit("ddp", 384, *constant, folder=whole)
    for expected, found in zip(tensors(whole), tensors(run), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.slow
def test_between_looks_nothing_is_exchanged_but_the_gradient_and_one_word(fit: Fit) -> None:
    """Under ddp the word is the guard's."""
    watch = "--trainer.callbacks+=collectives.Collectives"
    run = fit("ddp", 480, *UNWATCHED, watch)
    told = re.findall(r"rank \d: (.*)", (run / "out.txt").read_text())
    assert told == ["{'gloo:all_reduce': 2.0}"] * 2
