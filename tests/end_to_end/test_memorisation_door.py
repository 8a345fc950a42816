"""``energydiff memorisation``: a whole study as small as it can be, going on, and its sentences."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from energydiff.memorisation import study as study_module

HERE = Path(__file__).parent
TINY = (
    *("--experiment", f"[{HERE / 'tiny_mlp.yaml'}]", "--samples", "120", "--exemplars", "2"),
    *("--trials", "2", "--steps", "4", "--watched", "100", "--watch", "[32]"),
)
FIT = ("--", "--monitor.every_images", "0", "--val_every_images", "0")

Door = Callable[..., Any]


def asked(out: Path, *options: str, sizes: str = "[4, 8]", fit: tuple[str, ...] = FIT) -> list[str]:
    return ["memorisation", *TINY, "--sizes", sizes, "--out", str(out), *options, *fit]


def record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "study.json").read_text())
    return found


@pytest.mark.slow
def test_a_whole_study_goes_on_and_grows(
    process: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study"
    first = process(*asked(out, "--seeds", "[0, 1]", "--halves", "[4]", "--jobs", "2"))
    assert first.code == 0, first.err
    assert "0 equal another, and 19 pairs are nearer than 1.28" in first.out
    found = record(out)
    names = {path.name for path in (out / "runs").iterdir() if path.is_dir()}
    assert names == {"4_seed0", "4_seed1", "8_seed0", "8_seed1", "4_seed0_skip4"}
    assert [(run["images"], run["seed"], run["skip"]) for run in found["runs"]] == [
        *((4, 0, 0), (4, 1, 0), (8, 0, 0), (8, 1, 0), (4, 0, 4)),
    ]
    for run in found["runs"]:
        for kind in ("samples", "held_out"):
            shares = run["spaces"]["pixels"][kind]
            assert shares["count"] == 120
            total = sum(shares[name] for name in ("memorised", "spurious", "generalised"))
            assert total == pytest.approx(1)
        assert run["watched"]["images"] == [32]
    assert "minima" in found["runs"][0] and "minima" not in found["runs"][-1]
    assert {"held_out", "train"} <= set(found["runs"][0]["states"])
    assert [(step["seed"], step["from"], step["to"]) for step in found["fates"]] == [
        *((0, 4, 8), (1, 4, 8)),
    ]
    assert [half["images"] for half in found["halves"]] == [4]
    assert found["processor_seconds"] > 0
    assert (out / "memorisation.html").is_file()
    # The same command again trains and measures nothing; another size is added to what is there.
    samples = out / "runs/4_seed0/samples.npy"
    written = samples.stat().st_mtime_ns
    again = process(*asked(out, "--seeds", "[0, 1]", "--halves", "[4]"))
    assert again.code == 0 and samples.stat().st_mtime_ns == written
    grown = process(*asked(out, "--seeds", "[0]", sizes="[4, 8, 16]"))
    assert grown.code == 0, grown.err
    assert samples.stat().st_mtime_ns == written and (out / "runs/16_seed0").is_dir()
    other = process(*asked(out, "--seeds", "[0]", fit=(*FIT, "--model.learning_rate", "1e-4")))
    assert "holds a study of other trainings" in other.sentence


@pytest.mark.slow
def test_a_baseline_is_sorted_without_energies(process: Door, tmp_path: Path) -> None:
    fit = (*FIT, "--model.parametrization", "unconstrained")
    done = process(*asked(tmp_path, "--seeds", "[0]", fit=fit))
    assert done.code == 0, done.err
    found = record(tmp_path)
    assert all("states" not in run and run["spaces"]["pixels"] for run in found["runs"])
    assert all(step["fates"] == [] for step in found["fates"])


def test_a_dry_run_tries_two_steps(process: Door, tmp_path: Path) -> None:
    done = process(*asked(tmp_path, "--seeds", "[0]", "--dry_run", "true"))
    assert done.code == 0, done.err
    assert "4_seed0: two steps ran." in done.out and "8_seed0: two steps ran." in done.out
    assert not (tmp_path / "study.json").exists() and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "fit", "said"),
    [
        (("--sizes", "[1500]"), FIT, "a size of 1,500 images, and there are 1,499 to train on"),
        (("--halves", "[750]"), FIT, "two halves of 750 images"),
        (("--sizes", "[0]"), FIT, "sizes of at least 1"),
        (("--samples", "50"), FIT, "need 100 held-out samples or more"),
        (("--jobs", "0"), FIT, "jobs is 0"),
        ((), (*FIT, "--data.source.held_out", "0"), "held_out is 0"),
        ((), (*FIT, "--data.subset.images", "5"), "leave data.subset out"),
        ((), (*FIT, "--model.lerning_rate", "1"), "did you mean --model.learning_rate"),
    ],
)
def test_what_it_refuses(
    door: Door, tmp_path: Path, options: tuple[str, ...], fit: tuple[str, ...], said: str
) -> None:
    done = door(*asked(tmp_path, *options, fit=fit))
    assert said in done.sentence, done.err
    assert not (tmp_path / "runs").exists()


def test_without_an_experiment(door: Door, tmp_path: Path) -> None:
    assert "needs --experiment" in door("memorisation", "--sizes", "[4]").sentence


def test_a_training_that_fails_is_named(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the last line of what it said."""
    wrong = ["--config", "none.yaml"]
    monkeypatch.setattr(study_module.Study, "arguments", lambda self, run: wrong)
    done = door(*asked(tmp_path, "--seeds", "[0]"))
    assert "training" in done.sentence and "4_seed0 failed" in done.sentence
    assert "none.yaml" in done.sentence


def test_settings_of_another_time_are_not_taken_for_these(tmp_path: Path) -> None:
    """A file that is cut off or of other settings is made anew."""
    from energydiff.memorisation.looking import kept

    file = tmp_path / "found.json"
    assert kept(file, {"a": (1, 2)}, lambda: {"x": np.float64(2.0)}) == {"x": 2.0}
    assert kept(file, {"a": [1, 2]}, lambda: {"x": 3.0}) == {"x": 2.0}
    assert kept(file, {"a": [1, 3]}, lambda: {"x": 3.0}) == {"x": 3.0}
    file.write_text(file.read_text()[:20])
    assert kept(file, {"a": [1, 3]}, lambda: {"x": 4.0}) == {"x": 4.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10", "celeba"])
def test_the_studies_for_a_gpu_pass_a_dry_run(process: Door, tmp_path: Path, name: str) -> None:
    """At full width, on made data of the right form and smaller batches."""
    random = np.random.default_rng(0)
    data = tmp_path / ("cifar-10-batches-bin" if name == "cifar10" else "data")
    data.mkdir()
    if name == "cifar10":
        for batch in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
            records = random.integers(0, 256, (120, 3_073), np.uint8)
            records[:, 0] %= 10
            (data / f"{batch}.bin").write_bytes(records.tobytes())
    else:
        for i in range(900):
            image = Image.fromarray(random.integers(0, 256, (80, 66, 3), np.uint8))
            image.save(data / f"{i:06d}.jpg")
    done = process(
        *("memorisation", "--config", f"configs/memorisation/{name}.yaml", "--dry_run", "true"),
        *("--sizes", "[8, 128]", "--halves", "[8]", "--out", tmp_path / "out", "--"),
        *("--data.source.root", data, "--data.batch_size", "4", "--trainer.precision", "32"),
    )
    assert done.code == 0, done.err
    assert "8_seed0: two steps ran." in done.out and "128_seed0: two steps ran." in done.out
