"""Records of results: what may be compared with what."""

import json
from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from energydiff.errors import UserError
from energydiff.evaluation.comparing import compare_results
from energydiff.evaluation.records import Floor, Provenance, Quality, Result

PROVENANCE = Provenance(
    data="digits, train part",
    reference="ab",
    reference_count=1499,
    extractor="classifier",
    extractor_hash="cd",
    resize="none",
    quantisation="uint8",
    samples=100,
    blocks=4,
    seed=0,
    sampler="heun",
    steps=18,
    sigma_min=0.02,
    sigma_max=10.0,
    weights="exponential moving average",
    versions={"torch": "2"},
)
QUALITY = Quality(5.0, 4.0, 0.1, None, 0.7, 0.6)


def result(distances: list[float], provenance: Provenance = PROVENANCE) -> Result:
    return Result("runs/a", QUALITY, distances, Floor(50, 9.0, 12.0), provenance)


def other(value: Any) -> Any:
    return {"torch": "3"} if isinstance(value, dict) else value * 2 if value else 1


def test_results_of_one_provenance_compare_block_by_block() -> None:
    found = compare_results(result([4.0, 5.0, 6.0, 5.0]), result([5.0, 6.1, 6.9, 6.0]))
    assert found.mean == pytest.approx(-1.0)
    assert found.verdict == "better"


@pytest.mark.parametrize("name", [field.name for field in fields(Provenance)])
def test_anything_that_differs_is_named_and_refused(name: str) -> None:
    changed = replace(PROVENANCE, **{name: other(getattr(PROVENANCE, name))})
    with pytest.raises(UserError, match=rf"cannot be compared: their {name} differs"):
        compare_results(result([1.0, 2.0]), result([1.0, 2.0], changed))


def test_a_result_survives_json() -> None:
    known = result([1.0, 2.0])
    assert Result.from_dict(json.loads(json.dumps(asdict(known)))) == known
