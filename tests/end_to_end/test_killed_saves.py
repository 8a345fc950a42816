"""Killed while it writes a checkpoint, a run goes on from the one before."""

import signal
from pathlib import Path

import pytest
import torch

KILLS = 20


@pytest.mark.slow
def test_a_run_survives_any_number_of_kills_in_its_saves(
    tiny_mlp: Path, tmp_path: Path, process
) -> None:
    """Each start writes one checkpoint, and is killed at a random moment of the next."""
    run = tmp_path / "run"
    options = ["--config", tiny_mlp, "--trainer.default_root_dir", run]
    options += ["--monitor.every_images", 0, "--val_every_images", 0, "--finish.evaluations", 0]
    options += ["--checkpoint_every_images", 32, "--model.total_images", 32 * 3 * KILLS]
    before, half_written = 0, 0
    for seed in range(KILLS):
        kill = ["--trainer.callbacks+=kill_in_save.KillInSave", f"--trainer.callbacks.seed={seed}"]
        done = process("fit", *options, *kill)
        assert done.code == -signal.SIGKILL, done.err
        steps = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        assert before + 1 <= steps <= before + 2
        partial = [file for file in (run / "checkpoints").iterdir() if file.suffix == ".partial"]
        assert len(partial) <= 1  # what earlier kills left is gone
        before, half_written = steps, half_written + len(partial)
    assert half_written > KILLS / 2  # the kills did come in the middle
    done = process("fit", *options)
    assert done.code == 0, done.err
    assert [file.name for file in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert (run / "export" / "model.safetensors").is_file()
