"""A signal to any process of a run ends all of them after a step, with the last checkpoint."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from energydiff.training.stop import SIGNALS, requeue

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
AT = 4
QUIET = ["--monitor.every_images", 0, "--val_every_images", 0, "--finish.evaluations", 0]
TWO = ["--trainer.devices", 2, "--trainer.strategy", "ddp"]


def read(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def signalled(*signals: str, ranks: tuple[int, ...] = (0,), at: int = AT) -> list[str]:
    """Options of a run that gets signals after a step."""
    name = "--trainer.callbacks"
    return [
        f"{name}+=signal_at_step.SignalAtStep",
        f"{name}.step={at}",
        f"{name}.signals=[{','.join(signals)}]",
        f"{name}.ranks={list(ranks)}",
    ]


@pytest.fixture
def arguments(tiny_mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Ten steps, saved at the end alone."""
    monkeypatch.syspath_prepend(HERE)
    run = ["--trainer.default_root_dir", tmp_path / "run", "--model.total_images", 320]
    return ["fit", "--config", tiny_mlp, *QUIET, *run]


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("SIGTERM", 143, "stopped by SIGTERM"),
        ("SIGUSR1", 143, "stopped by SIGUSR1"),
        ("SIGINT", 130, "interrupted"),
    ],
)
def test_a_signal_ends_a_run_after_the_step_at_hand(
    name: str, code: int, said: str, arguments: list[object], tmp_path: Path, door
) -> None:
    """The next one: the signal comes once a step is done."""
    before = [signal.getsignal(number) for number in SIGNALS]
    done = door(*arguments, *signalled(name))
    assert done.code == code
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    image = (AT + 1) * 32
    told = f"{said}: run the same command again to go on from {last}, image {image}."
    assert told in done.err.splitlines()
    assert "Traceback" not in done.err
    assert read(run)["global_step"] == AT + 1
    assert not (run / "export").exists()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    done = door(*arguments)
    assert done.code == 0 and done.out.startswith(f"image {image + 32} of 320")
    assert read(run)["global_step"] == 10 and (run / "export").exists()


def test_a_second_interrupt_ends_at_once(
    arguments: list[object], tmp_path: Path, door, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        options = ["--checkpoint_every_images", 96]
        done = door(*arguments, *options, *signalled("SIGINT", "SIGINT"))
        assert done.code == 130 and "image 96." in done.err
        assert read(tmp_path / "run")["global_step"] == 3
    finally:
        signal.signal(signal.SIGINT, handler)


def test_accumulated_batches_are_not_left_half_way(
    arguments: list[object], tmp_path: Path, door
) -> None:
    accumulate = ["--trainer.accumulate_grad_batches", 2]
    assert door(*arguments, *accumulate, *signalled("SIGTERM")).code == 143
    assert read(tmp_path / "run")["global_step"] == AT + 1
    assert door(*arguments, *accumulate).code == 0
    stopped = read(tmp_path / "run")["state_dict"]
    elsewhere = [tmp_path / "whole" if a == tmp_path / "run" else a for a in arguments]
    assert door(*elsewhere, *accumulate).code == 0
    whole = read(tmp_path / "whole")["state_dict"]
    assert all(torch.equal(stopped[name], whole[name]) for name in whole)


def test_a_completion_is_stopped_alike(tmp_path: Path, door, monkeypatch) -> None:
    monkeypatch.syspath_prepend(HERE)
    run = tmp_path / "run"
    options = ["--config", "configs/digits/completion.yaml", "--model.total_images", 1280]
    options += ["--trainer.default_root_dir", run, "--val_every_images", 0]
    done = door("complete", "fit", *options, *signalled("SIGTERM", at=1))
    assert done.code == 143 and "stopped by SIGTERM" in done.err
    assert read(run)["global_step"] == 2


def test_what_was_stopped_ends_bitwise_where_it_would_have_ended(
    tiny_unet: Path, unet_run: Path, tmp_path: Path, door, monkeypatch
) -> None:
    """In the middle of a pass, with all monitors on."""
    monkeypatch.syspath_prepend(HERE)
    options = ["fit", "--config", tiny_unet, "--trainer.default_root_dir", tmp_path / "run"]
    assert door(*options, *signalled("SIGTERM", at=26)).code == 143
    assert door(*options).code == 0
    one, other = read(tmp_path / "run"), read(unet_run)
    for part in ("state_dict", "current_model_state", "averaging_state"):
        assert all(torch.equal(one[part][name], other[part][name]) for name in other[part])


@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        ("SIGTERM", (1,)),
        pytest.param("SIGTERM", (0,), marks=pytest.mark.slow),
        pytest.param("SIGTERM", (0, 1), marks=pytest.mark.slow),
        pytest.param("SIGUSR1", (1,), marks=pytest.mark.slow),
        pytest.param("SIGINT", (0, 1), marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_one_rank_or_all_ends_both_alike(
    name: str, ranks: tuple[int, ...], arguments: list[object], tmp_path: Path, process
) -> None:
    done = process(*arguments, *TWO, *signalled(name, ranks=ranks))
    assert done.code == (130 if name == "SIGINT" else 143), done.err
    assert done.err.count("run the same command again to go on from") == 1
    assert "Traceback" not in done.err
    assert read(tmp_path / "run")["global_step"] == AT + 1


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A SLURM that takes down what it is asked."""
    asked = tmp_path / "asked"
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    return lambda: asked.read_text().splitlines() if asked.exists() else []


@pytest.mark.parametrize(("name", "asked"), [("SIGUSR1", ["requeue 71"]), ("SIGTERM", [])])
def test_slurm_is_asked_for_another_run_before_the_time_is_over(
    name: str, asked: list[str], arguments: list[object], door, scontrol
) -> None:
    assert door(*arguments, *signalled(name)).code == 143
    assert scontrol() == asked


def test_one_task_of_an_array_is_requeued(scontrol, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    requeue()
    assert scontrol() == ["requeue 70_3"]


def test_without_slurm_nothing_is_requeued(scontrol, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID")
    requeue()
    assert scontrol() == []


def test_a_slurm_that_refuses_is_told_of(scontrol, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.warns(UserWarning, match="job 71 could not be requeued"):
        requeue()
