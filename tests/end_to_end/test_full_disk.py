"""A disk without room: one sentence, and what was there before is as it was."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
FULL = """
import resource, sys
from energydiff.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.RLIM_INFINITY))
sys.exit(main({arguments}))
"""


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_checkpoint_without_room_leaves_the_one_before(
    ranks: int, tiny_mlp: Path, tmp_path: Path, process
) -> None:
    options = ["--config", tiny_mlp, "--trainer.default_root_dir", tmp_path / "run"]
    options += ["--model.total_images", 320, "--checkpoint_every_images", 64]
    options += ["--monitor.every_images", 0, "--val_every_images", 0]
    options += ["--trainer.callbacks+=full_disk.FullDisk", "--trainer.callbacks.step=3"]
    if ranks > 1:
        options += ["--trainer.devices", ranks, "--trainer.strategy", "ddp"]
    done = process("fit", *options)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    said = f"error: {last} cannot be written (File too large), and is as it was before"
    assert done.sentence.startswith(said), done.err
    assert torch.load(last, weights_only=True)["global_step"] == 2
    assert [file.name for file in last.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("record", [True, False])
def test_samples_without_room_leave_those_of_before(
    record: bool, export, tmp_path: Path, door, python
) -> None:
    """A set that is to grow stays as large as it was."""
    out = tmp_path / "out"
    arguments = ["sample", export(), "--num_samples", 256, "--steps", 3, "--out", out]
    arguments += ["--accelerator", "cpu", "--trace", str(record).lower()]
    assert door(*arguments).code == 0
    first = out / ("trace.npz" if record else "samples.npz")
    files = {file: file.read_bytes() for file in out.rglob("*.npz")}
    again = [str(argument) for argument in (*arguments, "--num_samples", 512)]
    room = first.stat().st_size // 2
    done = python("-c", FULL.format(room=room, arguments=again), folder=ROOT)
    assert done.sentence.startswith(f"error: {out}/"), done.err
    assert ".npz cannot be written (File too large)" in done.sentence
    assert all(file.read_bytes() == content for file, content in files.items())
    assert not list(out.rglob("*.partial"))
