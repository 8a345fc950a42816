"""Figures: written, openable, and honest about rises."""

from dataclasses import replace

import matplotlib
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from energydiff.data import Normalization
from energydiff.energies import EmpiricalData
from energydiff.errors import UserError
from energydiff.numerals import TIED
from energydiff.report import (
    comparison_grid,
    free_energy_plot,
    sample_grid,
    samples_with_traces,
)
from energydiff.report.free_energy import change_shares, draw_changes, draw_free_energy
from energydiff.sampling import Euler, Langevin, Trace, certify, karras_sigmas
from energydiff.sampling.words import caption

NORMALIZATION = Normalization(0, 255)


@pytest.fixture(scope="module")
def result():
    data = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sampler = Euler(karras_sigmas(6, 0.02, 10.0), final_denoise=True)
    return sampler(EmpiricalData(data), seeds=range(9))


def with_rises(trace, places, height=1.5):
    """The trace with V raised by half at the end of each of these (step, sample)."""
    value, descent = trace.free_energy.clone(), trace.descent.clone()
    for step, sample in places:
        value[step + 1, sample] = height * value[step, sample]
        change = value[step + 1, sample] - value[step, sample]
        descent[step, sample] = change - trace.landscape[step, sample]
    return replace(trace, free_energy=value, descent=descent, claim="observed", digest="")


def marks(trace, draw=draw_free_energy):
    axes = Figure().add_subplot()
    draw(axes, trace)
    return [c.get_offsets().tolist() for c in axes.collections if c.get_gid() == "rises"]


def opened(path):
    with Image.open(path) as picture:
        picture.load()
        return picture


def test_no_marks_where_v_fell(result):
    assert marks(result.trace) == []
    assert caption(certify(result.trace)) == (
        "V fell at all 63 steps of 9 samples (proved by the construction)"
    )


def test_every_planted_rise_is_marked_where_v_rose(result):
    places = [(0, 2), (3, 7), (5, 0)]
    trace = with_rises(result.trace, places)
    want = [[float(trace.sigma[k + 1]), float(trace.free_energy[k + 1, b])] for k, b in places]
    (got,) = marks(trace)
    torch.testing.assert_close(torch.tensor(sorted(got)), torch.tensor(sorted(want)))
    assert caption(certify(trace)).startswith(
        f"V rose at 3 of 63 steps of 9 samples (4.8{TIED}%), at worst by "
    )


def test_a_value_that_is_not_finite_is_marked_at_the_point_before(result):
    trace = with_rises(result.trace, [(2, 1)], height=float("nan"))
    (got,) = marks(trace)
    assert [float(trace.sigma[2]), float(trace.free_energy[2, 1])] in got


def test_a_change_is_the_share_of_v_that_a_step_took(result):
    value = result.trace.free_energy.double()
    want = value[1:] / value[:-1] - 1
    torch.testing.assert_close(change_shares(result.trace), want, rtol=1e-4, atol=1e-6)
    assert marks(result.trace, draw_changes) == []


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        (4.0, 1.0, -0.75),
        (1.0, 4.0, 0.75),
        (1.0, -1.0, -2.0),
        (-1.0, -4.0, -0.75),
        (0.0, 0.0, 0.0),
        (1.0, float("nan"), 1.0),
    ],
)
def test_a_change_stays_within_twice_v_also_where_v_dips_below_zero(before, after, share):
    value = torch.tensor([[before], [after]])
    zero, change = torch.zeros(1, 1), value.diff(dim=0)
    sigma = torch.tensor([2.0, 1.0], dtype=torch.float64)
    trace = Trace(sigma, value, value, value, change, zero, zero, claim="observed")
    assert change_shares(trace).item() == share


def test_rises_stand_above_zero_where_their_step_ends_and_all_else_below(result):
    """A rise of 1 %, which the decades that V goes through would hide, is seen by its side."""
    places = [(0, 2), (3, 7), (5, 0)]
    trace = with_rises(result.trace, places, height=1.01)
    (got,) = marks(trace, draw_changes)
    want = [[float(trace.sigma[k + 1]), 0.01 / 1.01] for k, _ in places]
    torch.testing.assert_close(
        torch.tensor(sorted(got)), torch.tensor(sorted(want)), rtol=1e-3, atol=0
    )
    dots = drawn_changes(trace).collections[0].get_offsets()
    assert (dots[:, 1] > 0).sum() == len(places) and len(dots) == 7 * 9


def test_what_rose_has_a_ground_of_its_own_above_zero(result):
    axes = drawn_changes(result.trace)
    (ground,) = axes.patches
    assert ground.get_y() == 0 and ground.get_height() == pytest.approx(axes.get_ylim()[1])
    assert axes.get_ylim()[0] < -1


def test_only_a_final_denoising_is_called_so(result):
    def written(trace):
        return [text.get_text() for text in drawn_changes(trace).texts]

    assert written(result.trace) == ["final denoising", "rose", "fell"]
    data = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    chain = Langevin([1.0, 0.3], updates=5, step_size=0.5)(EmpiricalData(data), seeds=range(2))
    assert written(chain.trace) == ["rose", "fell"]


def drawn_changes(trace):
    axes = Figure().add_subplot()
    draw_changes(axes, trace)
    return axes


def test_v_at_constant_noise_is_drawn_against_the_step():
    """σ would put every point of a chain or a descent on one vertical line."""
    data = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    trace = Langevin(0.3, updates=5, step_size=0.5)(EmpiricalData(data), seeds=range(4)).trace
    trace = with_rises(trace, [(3, 2)], height=9.0)
    axes = Figure().add_subplot()
    draw_free_energy(axes, trace)
    curves, rises = axes.collections
    assert [curve[:, 0].tolist() for curve in curves.get_segments()] == [[0, 1, 2, 3, 4, 5]] * 4
    assert [4.0, float(trace.free_energy[4, 2])] in rises.get_offsets().tolist()
    assert axes.get_xlabel() == "step (noise level σ = 0.3)" and axes.get_xscale() == "linear"
    left, right = axes.get_xlim()
    assert -0.5 < left < 0 and 5 < right < 5.5
    changes = drawn_changes(trace)
    assert sorted(set(changes.collections[0].get_offsets()[:, 0])) == [1, 2, 3, 4, 5]
    assert changes.get_xlabel() == "step (noise level σ = 0.3)"


def test_v_down_a_grid_is_drawn_against_noise(result):
    axes = Figure().add_subplot()
    draw_free_energy(axes, result.trace)
    (curves,) = axes.collections
    for curve in curves.get_segments():
        assert curve[:, 0].tolist() == pytest.approx(result.trace.sigma.tolist())
    assert axes.get_xlabel() == "noise level σ (falling)" and axes.get_xscale() == "log"


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_free_energy_plot_is_written(result, tmp_path, suffix):
    path = tmp_path / "new folder" / f"v.{suffix}"
    free_energy_plot(result.trace, path)
    assert path.stat().st_size > 1000
    if suffix == "png":
        assert min(opened(path).size) > 500


@pytest.mark.parametrize("offset", [1.0, 1e6, float("nan")], ids=["dips", "negative", "nan"])
def test_free_energy_plot_survives_a_v_that_log_axes_cannot_show(result, tmp_path, offset):
    trace = replace(result.trace, free_energy=result.trace.free_energy - offset, digest="")
    free_energy_plot(trace, tmp_path / "v.png")
    opened(tmp_path / "v.png")


def test_sample_grid_is_a_png_of_sharp_pixels(tmp_path):
    x = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    sample_grid(x, NORMALIZATION, tmp_path / "grid.png")
    picture = opened(tmp_path / "grid.png")
    assert picture.format == "PNG" and set(picture.convert("L").tobytes()) == {0, 255}


@pytest.mark.parametrize("count", [1, 9])
def test_samples_with_traces(result, tmp_path, count):
    trace = result.trace.select(slice(count))
    samples_with_traces(result.samples[:count], trace, NORMALIZATION, tmp_path / "hero.png")
    assert opened(tmp_path / "hero.png").height > 500


def test_every_rise_of_a_shown_sample_is_marked_below_it_twice(result, tmp_path, monkeypatch):
    """On its V and on its changes; those of samples that are not shown are not."""
    drawings = []
    save = Figure.savefig
    spy = lambda self, *a, **k: (drawings.append(self), save(self, *a, **k))  # noqa: E731
    monkeypatch.setattr(Figure, "savefig", spy)
    trace = with_rises(result.trace, [(0, 2), (3, 2), (5, 0), (4, 8)])
    samples_with_traces(result.samples, trace, NORMALIZATION, tmp_path / "hero.png")
    (drawing,) = drawings
    marked = [
        [sum(len(c.get_offsets()) for c in a.collections if c.get_gid() == "rises")]
        for a in drawing.axes
    ]
    assert torch.tensor(marked).view(3, 7).tolist() == [
        [0] * 7,
        [1, 0, 2, 0, 0, 0, 0],
        [1, 0, 2, 0, 0, 0, 0],
    ]


def test_samples_must_go_with_their_trace(result, tmp_path):
    with pytest.raises(UserError, match="trace of 9"):
        samples_with_traces(result.samples[:4], result.trace, NORMALIZATION, tmp_path / "x.png")


def test_comparison_grid_sets_models_side_by_side(result, tmp_path):
    models = {"energy": result.samples, "baseline": -result.samples}
    comparison_grid(models, NORMALIZATION, tmp_path / "two.png")
    picture = opened(tmp_path / "two.png")
    assert picture.width > 1.5 * picture.height


@pytest.mark.parametrize(
    "models", [{}, {"a": torch.zeros(2, 1, 4, 4), "b": torch.zeros(3, 1, 4, 4)}]
)
def test_models_to_compare_need_the_same_shape(models, tmp_path):
    with pytest.raises(UserError, match="one shape"):
        comparison_grid(models, NORMALIZATION, tmp_path / "x.png")


def test_an_unknown_suffix_is_named_before_anything_is_drawn(result, tmp_path):
    with pytest.raises(UserError, match=r"v\.doc has no suffix"):
        free_energy_plot(result.trace, tmp_path / "v.doc")


def test_matplotlib_is_left_as_it_was(result, tmp_path):
    before = dict(matplotlib.rcParams)
    free_energy_plot(result.trace, tmp_path / "v.png")
    assert dict(matplotlib.rcParams) == before
