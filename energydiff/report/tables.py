"""Results of a measurement as tables for a terminal."""

from collections.abc import Callable

from rich.table import Table

from energydiff.evaluation.records import Arm, Comparison, Floor, Interval, Quality, Result


def interval_text(interval: Interval) -> str:
    """As in ``-1.20 [-2.10, -0.30]``."""
    return f"{interval.mean:.3g} [{interval.low:.3g}, {interval.high:.3g}]"


def result_table(result: Result, distance: str) -> Table:
    """Of one model; ``distance`` is what its Fréchet distance is called."""
    table = Table("", result.name, title=f"{result.provenance.samples:,} samples")
    for name, value in _qualities(distance).items():
        table.add_row(name, value(result.quality))
    table.add_row(f"{distance} of each block", " ".join(f"{v:.3g}" for v in result.block_frechet))
    table.add_row(_floor_name(result.floor), _floor_values(result.floor))
    table.add_row(
        "reference", f"{result.provenance.data}, {result.provenance.reference_count:,} images"
    )
    return table


def comparison_table(comparison: Comparison, distance: str) -> Table:
    """A, B and the difference; ``distance`` is what the Fréchet distance is called."""
    a, b = comparison.a, comparison.b
    provenance = comparison.provenance
    table = Table(
        "",
        *(f"{arm.name} ({arm.kind})" for arm in (a, b)),
        f"A − B over {comparison.over}, 95 %",
        title=f"{provenance.samples:,} samples, {provenance.sampler}, {provenance.steps} steps",
    )
    differences = {
        distance: interval_text(comparison.frechet),
        "KID": interval_text(comparison.kid),
    }
    for name, value in _qualities(distance).items():
        table.add_row(name, value(a.quality), value(b.quality), differences.get(name, ""))
    for name, text in _sides().items():
        table.add_row(name, text(a), text(b), "")
    for name, value in vars(comparison.matched).items():
        if value is not None:
            unit = name.replace("_", " ")
            table.add_row(
                f"{distance}, first block, at A's {unit}",
                f"{comparison.matched_frechet:.3g}",
                f"{value:.3g}",
                "",
            )
    if controls := comparison.controls:
        table.add_section()
        table.add_row("A − A, other seeds", "", "", interval_text(controls.same))
        table.add_row(
            f"A after {controls.degradation} − A", "", "", interval_text(controls.degraded)
        )
        table.add_row(_floor_name(controls.floor), _floor_values(controls.floor), "", "")
    failures = comparison.controls.failures() if comparison.controls else []
    table.caption = " ".join([f"A is {comparison.verdict} at this n.", *failures])
    return table


def _qualities(distance: str) -> dict[str, Callable[[Quality], str]]:
    return {
        distance: lambda q: f"{q.frechet:.4g}",
        "the same at n = ∞": lambda q: f"{q.frechet_infinity:.4g}",
        "KID": lambda q: f"{q.kid:.3g}",
        "Inception Score": lambda q: (
            "–" if q.inception_score is None else f"{q.inception_score:.3g}"
        ),
        "precision": lambda q: f"{q.precision:.3f}",
        "recall": lambda q: f"{q.recall:.3f}",
    }


def _sides() -> dict[str, Callable[[Arm], str]]:
    return {
        "function evaluations": lambda arm: str(arm.cost.nfe),
        "forward passes they amount to": lambda arm: f"{arm.cost.forward_equivalents:.1f}",
        "seconds a sample": lambda arm: f"{arm.cost.seconds:.2g}",
        "steps on which V rose": _rises,
        "bits/dim by the energy": lambda arm: (
            "–" if arm.bits_per_dim is None else f"{arm.bits_per_dim:.3f}"
        ),
        "asymmetry of the Jacobian": lambda arm: (
            "–" if arm.asymmetry is None else f"{arm.asymmetry:.1e}"
        ),
        "nearest training image": lambda arm: (
            f"{arm.nearest.samples:.3f} (held-out {arm.nearest.held_out:.3f})"
        ),
    }


def _floor_name(floor: Floor) -> str:
    return f"at n = {floor.count:,}; of as many {floor.part} images"


def _floor_values(floor: Floor) -> str:
    return f"{floor.samples:.4g}; {floor.held_out:.4g}"


def _rises(arm: Arm) -> str:
    if arm.certificate is None:
        return "no energy"
    return f"{arm.certificate.rises} of {arm.certificate.steps}"
