"""Samples are written while they are drawn, gone on with where they were left, never mixed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from energydiff.denoisers import EnergyDenoiser
from energydiff.drawing import Drawing
from energydiff.energies import GaussianMixture
from energydiff.report import load_trace
from energydiff.sampling import certify

HERE = Path(__file__).parent
WATCHED = HERE / "watched_sample.py"
COUNT, BATCH = 11, 3
HOW = ("--steps", 2, "--batch_size", BATCH, "--accelerator", "cpu")
Drawn = list[list[int]]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The numbers of each batch that is drawn in this process."""
    found: Drawn = []
    draw = Drawing.draw

    def noted(self: Drawing, denoiser: Any, sampler: Any, numbers: Any, *others: Any) -> Any:
        found.append(list(numbers))
        return draw(self, denoiser, sampler, numbers, *others)

    monkeypatch.setattr(Drawing, "draw", noted)
    return found


@pytest.fixture
def sample(door) -> Callable[..., Any]:
    def run(model: Path, out: Path, count: int = COUNT, *options: object) -> Any:
        return door("sample", model, "-n", count, "--out", out, *HOW, *options)

    return run


def test_a_killed_run_is_gone_on_with_to_the_same_bytes(
    python, sample, export, drawn: Drawn, tmp_path: Path
) -> None:
    """With a wreck of each kind: images without their part, and a part that is damaged."""
    model, out, whole = export(), tmp_path / "out", tmp_path / "whole"
    arguments = ("sample", model, "-n", COUNT, "--out", out, *HOW)
    assert python(WATCHED, 2, *arguments, folder=HERE).code == -9
    assert sorted(f.name for f in out.iterdir()) == ["images", "parts", "sampling.json"]
    assert sorted(f.name for f in (out / "parts").iterdir()) == ["000000.npz", "000003.npz"]
    assert len(list((out / "images").iterdir())) == 3 * BATCH
    damaged = out / "parts" / "000003.npz"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    (out / "parts" / "0123.partial").write_bytes(b"half")
    done = sample(model, out)
    assert done.code == 0, done.err
    assert drawn == [[3, 4, 5], [6, 7, 8], [9, 10]]
    assert sample(model, whole).code == 0
    assert contents(out) == contents(whole)
    assert certify(load_trace(out)).samples == COUNT


def test_populations_are_gone_on_with_whole(sample, export, drawn: Drawn, tmp_path: Path) -> None:
    """A batch of three is one population of two."""
    model, out, whole = export(), tmp_path / "out", tmp_path / "whole"
    options = ("--sampler", "smc", "--sampler_options.particles", 2)
    assert sample(model, out, 4, *options).code == 0
    drawn.clear()
    done = sample(model, out, 8, *options)
    assert done.code == 0 and drawn == [[4, 5], [6, 7]]
    again = sample(model, out, 8, *options)
    assert again.out.splitlines()[-1] == done.out.splitlines()[-1] != ""
    assert sample(model, whole, 8, *options).code == 0
    assert contents(out) == contents(whole)


def test_the_same_command_again_draws_nothing_and_says_the_same(
    sample, export, drawn: Drawn, tmp_path: Path
) -> None:
    model, out = export(), tmp_path / "out"
    first = sample(model, out)
    before, count = contents(out), len(drawn)
    again = sample(model, out)
    assert again.code == 0 and len(drawn) == count
    assert contents(out) == before
    certificate = [said.out[said.out.index("The certificate") :] for said in (first, again)]
    assert certificate[0] == certificate[1]


@pytest.mark.parametrize("options", [(), ("--trace", "false")], ids=["recorded", "alone"])
def test_more_samples_go_on_from_fewer(
    options: tuple[str, ...], sample, export, drawn: Drawn, tmp_path: Path
) -> None:
    """Those that are there stay, to the bit; an image that was lost is written again."""
    model, out, whole = export(), tmp_path / "out", tmp_path / "whole"
    assert sample(model, out, 2 * BATCH, *options).code == 0
    image = out / "images" / "000001.png"
    lost = image.read_bytes()
    image.unlink()
    drawn.clear()
    assert sample(model, out, COUNT, *options).code == 0
    assert drawn == [[6, 7, 8], [9, 10]]
    assert image.read_bytes() == lost
    assert sample(model, whole, COUNT, *options).code == 0
    assert contents(out) == contents(whole)


def test_samples_of_another_model_or_other_settings_are_not_touched_unless_one_says_so(
    sample, export, bad_gauge: EnergyDenoiser, tmp_path: Path
) -> None:
    model, other, out = export(), export(bad_gauge, "other"), tmp_path / "out"
    assert sample(model, out).code == 0
    before = contents(out)
    for wrong, options, differ in (
        (other, (), "weights"),
        (model, ("--seed", 1), "seed"),
        (model, ("--sampler", "euler"), "sampler"),
        (model, ("--trace", "false"), "trace"),
    ):
        done = sample(wrong, out, COUNT, *options)
        assert f"(they differ in {differ}): choose another --out, or add --over" in done.sentence
        assert contents(out) == before
    moved = model.rename(tmp_path / "moved")
    assert sample(moved, out).code == 0  # the same model, wherever it lies
    assert sample(moved, out, 4, "--seed", 1, "--overwrite").code == 0
    assert len(list((out / "images").iterdir())) == 4
    assert json.loads((out / "certificate.json").read_text())["settings"]["seed"] == 1


def test_what_was_left_of_other_settings_is_not_gone_on_with(
    python, sample, export, tmp_path: Path
) -> None:
    """A run that was killed, and --overwrite that was."""
    model, out = export(), tmp_path / "out"
    arguments = ("sample", model, "-n", COUNT, "--out", out, *HOW)
    assert python(WATCHED, 1, *arguments, folder=HERE).code == -9
    assert "they differ in seed" in sample(model, out, COUNT, "--seed", 1).sentence
    other = (*arguments, "--seed", 1, "--overwrite")
    assert python(WATCHED, 2, *other, folder=HERE).code == -9
    assert "they differ in seed" in sample(model, out).sentence
    assert sample(model, out, COUNT, "--seed", 1, "--overwrite").code == 0
    assert sample(model, tmp_path / "whole", COUNT, "--seed", 1).code == 0
    assert contents(out) == contents(tmp_path / "whole")


def test_samples_of_an_earlier_version_are_not_touched(sample, export, tmp_path: Path) -> None:
    model, out = export(), tmp_path / "out"
    assert sample(model, out).code == 0
    (out / "sampling.json").unlink()
    assert "without the record of how they were drawn" in sample(model, out).sentence
    assert sample(model, out, COUNT, "--overwrite").code == 0


def test_a_sample_that_is_not_finite_is_named_and_the_others_are_there(
    sample, export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Drawing.draw

    def poisoned(self: Drawing, denoiser: Any, sampler: Any, numbers: Any, *others: Any) -> Any:
        result = draw(self, denoiser, sampler, numbers, *others)
        if 4 in numbers:
            result.samples[numbers.index(4)] = torch.nan
        return result

    monkeypatch.setattr(Drawing, "draw", poisoned)
    done = sample(export(), tmp_path / "out")
    assert "Sample 4 holds values that are not finite." in done.sentence
    assert {int(f.stem) for f in (tmp_path / "out" / "images").iterdir()} == {*range(11)} - {4}
    assert (tmp_path / "out" / "certificate.json").exists()


def test_the_grid_shows_the_first_of_many(
    sample, export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("energydiff.report.sampling.SHOWN_IN_GRID", 4)
    monkeypatch.setattr("energydiff.report.sampling.SHOWN_CURVES", 4)
    assert sample(export(), tmp_path / "four", 4).code == 0
    assert sample(export(), tmp_path / "all").code == 0
    grids = [Image.open(tmp_path / name / "grid.png") for name in ("four", "all")]
    assert np.array_equal(*map(np.asarray, grids))


@pytest.mark.slow
def test_two_ranks_that_were_killed_go_on_to_the_bytes_of_one(
    python, process, sample, export, tmp_path: Path
) -> None:
    model, out, whole = export(), tmp_path / "out", tmp_path / "whole"
    arguments = ("sample", model, "-n", COUNT, "--out", out, *HOW, "--devices", 2)
    assert python(WATCHED, 1, *arguments, folder=HERE).code == -9
    assert len(list((out / "parts").glob("*.npz"))) == 2  # one of each
    done = process(*arguments)
    assert done.code == 0, done.err
    assert sample(model, whole).code == 0
    assert contents(out) == contents(whole)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_samples(python, export, tmp_path: Path) -> None:
    """Eight times the samples are 95 MiB more of them, raw values and pixels."""
    shape, few = (3, 32, 32), 500
    model = export(GaussianMixture(torch.zeros(1, *shape), 0.5))
    peaks = []
    for count in (few, 8 * few):
        how = ("--steps", 1, "--batch_size", 100, "--accelerator", "cpu")
        out = tmp_path / str(count)
        arguments = ("sample", model, "-n", count, "--out", out, *how)
        done = python(WATCHED, -1, *arguments, folder=HERE)
        assert done.code == 0, done.err
        peaks.append(int(done.out.split("peak")[1]))
    with np.load(out / "samples.npz") as archive:
        assert archive["images"].shape == (8 * few, 32, 32, 3)
    assert peaks[1] - peaks[0] < 24 * 1024, peaks  # KiB
