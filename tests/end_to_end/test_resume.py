"""A run that was killed and started again ends where it would have ended."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from energydiff.training.finish import CalibrateAndExport

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
KILLED_AT, SAVED_AT, STEPS = 27, 20, 60  # saves at 20, 40 and 60; a pass ends at 47


def read(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def same(one: Any, other: Any) -> bool:
    """Bitwise, through dictionaries and lists."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def kill_at(step: int, arguments: list[str]) -> None:
    """Starts a run and kills it, without a chance to tidy up, right after this step."""
    variables = {"WAIT_AT_STEP": str(step), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    running = subprocess.Popen(
        [sys.executable, "-m", "energydiff", *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    alarm = threading.Timer(120, running.kill)
    alarm.start()
    assert running.stdout is not None
    output = []
    for line in running.stdout:
        output.append(line)
        if line.strip() == "waiting":
            break
    else:
        pytest.fail("the run never got to its step:\n" + "".join(output))
    running.kill()
    running.wait()
    running.stdout.close()
    alarm.cancel()


@pytest.fixture(scope="module")
def arguments(tiny_unet: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    run = tmp_path_factory.mktemp("resumed") / "unet"
    waiting = "--trainer.callbacks+=wait_at_step.WaitAtStep"
    return ["fit", "--config", str(tiny_unet), waiting, "--trainer.default_root_dir", str(run)]


@pytest.fixture(scope="module")
def killed(arguments: list[str]) -> tuple[int, list[str]]:
    """The step of the checkpoint that the kill left, and the files in the run folder."""
    kill_at(KILLED_AT, arguments)
    run = Path(arguments[-1])
    return read(run)["global_step"], sorted(str(f.relative_to(run)) for f in run.rglob("*"))


@pytest.fixture(scope="module")
def resumed(arguments: list[str], killed: Any, process) -> Path:
    """The run folder after the same command has run once more."""
    done = process(*arguments)
    assert done.code == 0, done.err
    return Path(arguments[-1])


def test_the_kill_came_between_two_checkpoints(killed: tuple[int, list[str]]) -> None:
    """In the middle of a pass, with nothing exported and no half-written file."""
    step, files = killed
    assert step == SAVED_AT
    assert not any(name.startswith("export") for name in files)
    assert [f for f in files if f.startswith("checkpoints/")] == ["checkpoints/last.ckpt"]


@pytest.mark.parametrize(
    "part",
    ["state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"],
)
def test_it_ends_bitwise_where_the_uninterrupted_run_ends(
    part: str, resumed: Path, unet_run: Path
) -> None:
    """Averaged weights, weights, optimizer moments and schedule."""
    assert read(resumed)["global_step"] == read(unet_run)["global_step"] == STEPS
    assert same(read(resumed)[part], read(unet_run)[part])


def test_the_exports_are_the_same(resumed: Path, unet_run: Path) -> None:
    one, other = (run / "export" / "model.safetensors" for run in (resumed, unet_run))
    assert one.read_bytes() == other.read_bytes()


def test_the_monitor_logged_the_same(
    resumed: Path, unet_run: Path, metrics: Callable[[Path], dict[str, list[float]]]
) -> None:
    one, other = metrics(resumed), metrics(unet_run)
    names = [name for name in other if name.startswith(("lyapunov/", "val/"))]
    assert names and all(one[name] == other[name] for name in names)


def test_a_third_start_says_that_all_is_done(
    resumed: Path, arguments: list[str], door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(HERE)
    files = [resumed / name for name in ("checkpoints/last.ckpt", "export/model.yaml")]
    before = [file.stat().st_mtime_ns for file in files]
    done = door(*arguments)
    assert done.code == 0
    assert "has all of its 1920 images" in done.out
    assert [file.stat().st_mtime_ns for file in files] == before


def test_a_run_killed_before_its_export_is_completed_by_the_same_command(
    tiny_unet: Path, unet_run: Path, door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without training on: gauge, checkpoint and export are those of the uninterrupted run."""

    def killed(*_: Any) -> None:
        raise SystemExit(9)

    run = tmp_path / "run"
    command = ["fit", "--config", tiny_unet, "--trainer.default_root_dir", run]
    with monkeypatch.context() as patch:
        patch.setattr(CalibrateAndExport, "on_train_end", killed)
        assert door(*command).code == 9
    assert read(run)["global_step"] == STEPS and not (run / "export").exists()
    assert not same(read(run)["state_dict"], read(unet_run)["state_dict"])  # no gauge yet

    description = run / "export" / "model.yaml"
    for left_behind in ("nothing", "an export of fewer images"):
        if left_behind != "nothing":
            text = description.read_text()
            description.write_text(text.replace("total_images: 1920", "total_images: 960"))
        done = door(*command)
        assert done.code == 0 and "has all of its 1920 images" in done.out
        for part in ("state_dict", "current_model_state", "optimizer_states"):
            assert same(read(run)[part], read(unet_run)[part])
        one, other = (folder / "export" / "model.safetensors" for folder in (run, unet_run))
        assert one.read_bytes() == other.read_bytes()
        assert "total_images: 1920" in description.read_text()


def test_a_finished_run_goes_on_as_if_it_had_never_ended(
    tiny_unet: Path, tmp_path: Path, door
) -> None:
    """Raising total_images continues from the weights, not from their average."""
    long, short = (tmp_path / name for name in ("long", "short"))
    arguments = ["fit", "--config", tiny_unet, "--monitor.every_images", 10**6]
    for run, total in ((short, 320), (short, 640), (long, 640)):
        options = ["--trainer.default_root_dir", run, "--model.total_images", total]
        assert door(*arguments, *options).code == 0
    one, other = read(short), read(long)
    assert same(one["optimizer_states"], other["optimizer_states"])
    assert same(trained(one["current_model_state"]), trained(other["current_model_state"]))
    assert same(trained(one["state_dict"]), trained(other["state_dict"]))


def trained(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if ".gauge." not in name}


def test_another_model_in_the_same_folder_is_refused(unet_run: Path, tiny_unet: Path, door) -> None:
    before = (unet_run / "checkpoints" / "last.ckpt").read_bytes()
    options = ["--trainer.default_root_dir", unet_run, "--model.backbone.init_args.channels", 8]
    done = door("fit", "--config", tiny_unet, *options)
    assert "was trained with model.backbone.channels 4, not 8" in done.sentence
    assert (unet_run / "checkpoints" / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize(("option", "value"), [("data.batch_size", 48), ("seed_everything", 7)])
def test_another_count_or_order_of_images_is_refused(
    unet_run: Path, tiny_unet: Path, door, option: str, value: int
) -> None:
    """Steps of another batch size would be miscounted, and another seed is another stream."""
    options = ["--trainer.default_root_dir", unet_run, f"--{option}", value]
    done = door("fit", "--config", tiny_unet, *options)
    assert option in done.sentence
