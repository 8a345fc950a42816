"""Features of samples: the same whatever the chunks, kept, and resumed by seed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from energydiff.errors import UserError
from energydiff.evaluation import Measurement, OpenedModel, candidate
from energydiff.evaluation.candidate import Candidate, Quantised, blur


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """The numbers of the samples that are really drawn, call by call; chunks of eight."""
    calls: list[range] = []
    draw = candidate.draw_features

    def counted(denoiser, sampler, numbers, how, extract):  # type: ignore[no-untyped-def]
        calls.append(numbers)
        return draw(denoiser, sampler, numbers, how, extract)

    monkeypatch.setattr(candidate, "draw_features", counted)
    monkeypatch.setattr(candidate, "CHUNK", 8)
    return calls


@pytest.fixture
def make(measurement: Measurement, exported: dict[str, Path], tmp_path: Path):  # type: ignore[no-untyped-def]
    def candidate_of(kind: str = "energy", **how: object) -> Candidate:
        settings = replace(measurement.settings, store=tmp_path / "features", **how)  # type: ignore
        return Candidate(OpenedModel.at(exported[kind]), measurement.extractor, settings)

    return candidate_of


def test_sample_i_does_not_depend_on_batch_or_chunk(make, drawn: list[range]) -> None:
    whole = make(batch_size=5).features(0, 20)
    assert drawn == [range(8), range(8, 16), range(16, 20)]
    part = make(batch_size=64).features(6, 9)
    torch.testing.assert_close(part, whole[6:15], rtol=1e-4, atol=1e-4)


def test_an_interrupted_run_goes_on_where_it_was(make, drawn: list[range], tmp_path: Path) -> None:
    draws = make()
    first = draws.features(0, 24)
    files = sorted((tmp_path / "features").rglob("*.npy"), key=lambda f: int(f.stem.split("-")[0]))
    assert [file.stem for file in files] == ["0-8", "8-16", "16-24"]
    files[1].unlink()
    files[2].write_bytes(files[2].read_bytes()[:100])  # cut off while it was written
    drawn.clear()
    assert torch.equal(make().features(0, 24), first)
    assert drawn == [range(8, 16), range(16, 24)]


def test_what_the_features_depend_on_keeps_them_apart(make, drawn: list[range]) -> None:
    known = make().features(0, 8)
    for other in ({"seed": 1}, {"steps": 4}, {"sampler": "heun"}):
        assert not torch.equal(make(**other).features(0, 8), known)
    assert not torch.equal(make("baseline").features(0, 8), known)
    assert len(drawn) == 5


def test_features_of_other_versions_are_drawn_anew(
    make, drawn: list[range], monkeypatch: pytest.MonkeyPatch
) -> None:
    make().features(0, 8)
    monkeypatch.setattr(candidate, "versions", lambda: {"energydiff": "another"})
    make().features(0, 8)
    assert drawn == [range(8), range(8)]


def test_a_sample_that_is_not_finite_makes_no_image(measurement: Measurement) -> None:
    samples = torch.zeros(3, 1, 8, 8)
    samples[1, 0, 0, 0] = torch.nan
    normalization = measurement.splits.train.normalization
    for degraded in (False, True):
        found = Quantised(measurement.extractor, normalization, degraded)(samples)
        assert found.isfinite().all(1).tolist() == [True, False, True]
    with pytest.raises(UserError, match="1 of 3 samples have features that are not finite"):
        measurement.distance(measurement.extractor.features(found))


def test_blurred_images_stand_beside_the_plain_ones(make, drawn: list[range]) -> None:
    plain = make().features(0, 8)
    both = make().features(0, 8, degraded=True)
    width = plain.shape[1]
    torch.testing.assert_close(both[:, :width], plain, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(both[:, width:], plain, atol=0.1)


def test_the_blur_keeps_flat_images_and_means() -> None:
    flat = torch.full((2, 3, 5, 4), 0.7)
    torch.testing.assert_close(blur(flat), flat)
    spike = torch.zeros(1, 1, 5, 5)
    spike[0, 0, 2, 2] = 64.0
    middle = torch.tensor([[1.0, 6.0, 1.0], [6.0, 36.0, 6.0], [1.0, 6.0, 1.0]])
    torch.testing.assert_close(blur(spike)[0, 0, 1:4, 1:4], middle)


def test_other_shapes_are_refused(measurement: Measurement, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the reference has 1 channel, the samples have 3"):
        measurement.reference.require_shape((3, 8, 8))
