"""Two processes do what one does: the same gradient, the same numbers, the same samples."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

TWO = ["--trainer.devices", 2, "--trainer.strategy", "ddp"]


@pytest.fixture(scope="module")
def one(process, tiny_mlp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(process, tiny_mlp, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(process, tiny_mlp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(process, tiny_mlp, tmp_path_factory.mktemp("two"), *TWO)


def train(process, config: Path, run: Path, *options: object) -> Path:
    watched = Path(__file__).with_name("quality_monitor.yaml")
    arguments = ["--config", config, "--config", watched]
    arguments += ["--trainer.default_root_dir", run, "--trainer.log_every_n_steps", 1, *options]
    done = process("fit", *arguments)
    assert done.code == 0, done.err
    return run


def moments(run: Path) -> Tensor:
    """AdamW's first moments after one step: (1 − β₁) times the clipped gradient."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 1
    (optimizer,) = checkpoint["optimizer_states"]
    return torch.cat([state["exp_avg"].flatten() for state in optimizer["state"].values()])


def test_the_gradient_of_a_batch_is_that_of_one_process(one: Path, two: Path) -> None:
    """data.batch_size counts the images of all ranks."""
    expected, found = moments(one), moments(two)
    assert expected.norm().item() > 1e-3
    assert ((found - expected).norm() / expected.norm()).item() < 1e-6


def test_the_monitor_and_the_held_out_loss_are_those_of_one_process(
    one: Path, two: Path, metrics: Callable[[Path], dict[str, list[float]]]
) -> None:
    """Over probes and held-out images that do not divide evenly between two."""
    expected, found = metrics(one), metrics(two)
    names = [name for name in expected if name.startswith(("lyapunov/", "val/", "train/"))]
    assert len(names) > 15
    for name in names:
        assert found[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-5), name


def test_the_quality_of_samples_is_that_of_one_process(
    one: Path, two: Path, metrics: Callable[[Path], dict[str, list[float]]]
) -> None:
    """21 samples do not divide between two; a rounding may move a pixel by one level."""
    expected, found = metrics(one), metrics(two)
    names = [name for name in expected if name.startswith("quality/")]
    assert len(names) == 6
    for name in names:
        assert found[name] == pytest.approx(expected[name], rel=1e-2), name


def test_the_sample_grid_is_that_of_one_process(one: Path, two: Path) -> None:
    file = "samples/000000032.png"
    assert (one / file).read_bytes() == (two / file).read_bytes()


def test_a_thousand_samples_are_those_of_one_process(
    process, door, two: Path, tmp_path: Path
) -> None:
    """Exactly as many as asked for, each once, in the same order, with their trace."""
    count = ["--num_samples", 1000, "--batch_size", 128]
    options = [two, *count, "--steps", 3, "--accelerator", "cpu"]
    done = process("sample", *options, "--devices", 2, "--out", tmp_path / "two")
    assert done.code == 0, done.err
    assert door("sample", *options, "--out", tmp_path / "one").code == 0
    found, expected = (np.load(tmp_path / n / "samples.npz")["samples"] for n in ("two", "one"))
    assert len(found) == len(np.unique(found, axis=0)) == 1000
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert len(list((tmp_path / "two" / "images").iterdir())) == 1000
    traces = [np.load(tmp_path / name / "trace.npz")["energy"] for name in ("two", "one")]
    np.testing.assert_allclose(*traces, rtol=1e-4, atol=1e-3)


def test_fewer_held_out_images_than_ranks_give_the_loss_of_one_process(
    process, tiny_mlp: Path, tmp_path: Path, metrics: Callable[[Path], dict[str, list[float]]]
) -> None:
    """One, that both measure."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((40, 4), np.float32))
    data = ["--data.source=Arrays", f"--data.source.root={tmp_path / 'x.npy'}"]
    options = ["--config", tiny_mlp, *data, "--data.source.held_out=0.03"]
    losses = []
    for name, ranks in (("one", []), ("two", TWO)):
        run = ["--trainer.default_root_dir", tmp_path / name]
        done = process("fit", *options, *run, *ranks)
        assert done.code == 0, done.err
        told = "Data: 39 samples to train on and 1 held out, 4 numbers each, "
        assert done.err.count(told) == done.err.count("Data: ") == 1
        losses.append(metrics(tmp_path / name)["val/loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.slow
def test_a_batch_that_two_ranks_cannot_share_is_a_sentence(
    process, tiny_mlp: Path, tmp_path: Path
) -> None:
    options = ["--data.batch_size", 33, "--trainer.default_root_dir", tmp_path, *TWO]
    done = process("fit", "--config", tiny_mlp, *options)
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    assert "data.batch_size 33 must be divisible by devices" in done.err


def squeezed(text: str) -> list[str]:
    """Its lines, with one space for many."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_an_image_that_poisons_one_rank_stops_both_and_is_named(
    process, tiny_mlp: Path, tmp_path: Path, door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The averaged gradient is bad on every rank; the loss was on one. Both batches are kept, and
    the step can be taken again."""
    poison = "--trainer.callbacks+=poison_rank.PoisonRank"
    options = ["--trainer.default_root_dir", tmp_path, poison, *TWO]
    done = process("fit", "--config", tiny_mlp, *options)
    assert done.code == 2, done.err
    assert re.search(r"before step 0: not finite on rank 1: .* indices \[\d+\]\. The", done.err)
    assert "Traceback" not in done.err
    assert not (tmp_path / "checkpoints").exists()
    kept = tmp_path / "nonfinite" / "000000000"
    assert f"(energydiff replay {kept} takes the step again)" in done.err
    shares = json.loads((kept / "report.json").read_text())["ranks"]
    assert shares[0]["counts"] + shares[1]["counts"] == list(range(32))
    assert None not in shares[0]["losses"] and shares[1]["losses"].index(None) == 0

    monkeypatch.syspath_prepend(Path(__file__).parent)
    again = door("replay", kept, "--accelerator", "cpu")
    assert again.code == 0, again.err
    assert re.search(r"Rank 0: gradient norm [\d.]+, all finite\.", again.out)
    assert "Rank 1: gradient norm nan, not finite first in the images; in the grad" in again.out
    largest = f"{max(shares[0]['losses']):.4g}"
    assert any(line.split("│")[5:7] == [f" {largest} "] * 2 for line in squeezed(again.out))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_gradient_that_one_rank_lost_stops_both_and_is_named(
    strategy: str, process, tiny_mlp: Path, tmp_path: Path
) -> None:
    fault = "--trainer.callbacks+=poison_rank.ForgetOnRank"
    options = ["--trainer.default_root_dir", tmp_path, fault, *TWO, "--trainer.strategy", strategy]
    done = process("fit", "--config", tiny_mlp, *options)
    assert done.code == 2, done.err
    assert re.search(r"1 of 13 parameters got no gradient in the first step .*: denoiser", done.err)
    assert "Traceback" not in done.err
    assert not (tmp_path / "checkpoints").exists()
