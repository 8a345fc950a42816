"""Critical points in the plane against cubical persistence, which knows nothing of derivatives."""

import math
from collections import Counter

import pytest
import torch

from energydiff.energies import EmpiricalData
from energydiff.landscape.critical import critical_points
from energydiff.landscape.surface import Surface

gudhi = pytest.importorskip("gudhi")


@pytest.mark.parametrize(("sigma", "counts"), [(0.70, (3, 3, 1)), (0.72, (4, 3)), (0.75, (1,))])
def test_the_triangle_has_the_persistence_of_its_critical_points(
    sigma: float, counts: tuple[int, ...]
) -> None:
    """Minima are born; a saddle kills a component or bears a loop, a maximum kills one."""
    angles = torch.arange(3).double() * 2 * math.pi / 3
    surface = Surface(EmpiricalData(torch.stack([angles.cos(), angles.sin()], 1)))
    ticks = torch.linspace(-1.5, 1.5, 401).double()
    value = surface.value(torch.cartesian_prod(ticks, ticks), sigma).view(401, 401)
    complex = gudhi.CubicalComplex(top_dimensional_cells=value.numpy())
    complex.compute_persistence(min_persistence=1e-9)
    parts, loops = (complex.persistence_intervals_in_dimension(k) for k in (0, 1))
    dead = sum(math.isfinite(death) for _, death in parts)
    assert (len(parts), dead + len(loops), len(loops)) == (*counts, 0, 0)[:3]
    starts = torch.cartesian_prod(*[torch.linspace(-0.8, 0.8, 17).double()] * 2)
    found = critical_points(surface, starts, sigma, None, "Searching")
    assert Counter(found.index.tolist()) == Counter(dict(enumerate(counts)))
    levels = sorted(found.of_index(0).free_energy.tolist())
    assert sorted(birth for birth, _ in parts) == pytest.approx(levels, abs=2e-5)
    merged = sorted(death for _, death in parts if math.isfinite(death))
    saddles = sorted(found.of_index(1).free_energy.tolist())
    assert merged == pytest.approx(saddles[: len(merged)], abs=2e-5)
