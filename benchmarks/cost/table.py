"""Rows as lines, the peers in one table, and the targets."""

from rich.table import Table

from benchmarks.cost.cases import Case
from benchmarks.cost.rows import Row

TRACE_TARGET = 1.55
PEERS = ("plain autograd", "torchebm")


def line(row: Row) -> str:
    """One ratio with its quartiles."""
    extra = "".join(
        f"  {name} x{value:.2f}"
        for name, value in (("operations", row.operations_ratio), ("memory", row.memory_ratio))
        if value is not None
    )
    absolute = "" if row.mebibytes is None else f", {row.mebibytes:.1f} MiB"
    return (
        f"  {row.quantity:16s} {row.contestant} / {row.reference}: x{row.time_ratio:.2f}"
        f" ({row.low:.2f} to {row.high:.2f})  {row.milliseconds:.1f} ms{absolute}{extra}"
    )


def peers_table(rows: list[Row]) -> Table:
    """Ours beside the same energy by autograd and by torchebm, time (memory) ours / theirs."""
    table = Table(title="the same energy on the same weights: ours / theirs, time (memory)")
    for column in ("network", "", "ms", "MiB", *(f"/ {peer}" for peer in PEERS)):
        table.add_column(column)
    against = {(row.case, row.quantity, row.reference): row for row in rows}
    for row in rows:
        if row.reference == PEERS[0]:
            both = [against.get((row.case, row.quantity, peer)) for peer in PEERS]
            table.add_row(
                row.case,
                row.quantity,
                f"{row.milliseconds:.1f}",
                f"{row.mebibytes:.1f}",
                *(f"{r.time_ratio:.2f} ({r.memory_ratio:.2f})" if r else "-" for r in both),
            )
    return table


def targets(cases: list[Case], rows: list[Row]) -> list[dict[str, object]]:
    """Everything that has a target, beside it."""
    limits = {case.name: case.limits for case in cases}
    result: list[dict[str, object]] = []

    def add(name: str, value: float | None, target: float | None) -> None:
        if target is not None:
            result.append({"name": name, "value": value, "target": target})

    for row in rows:
        of_case, name = limits[row.case], f"{row.case}: {row.quantity}"
        match row.quantity, row.contestant, row.reference:
            case "training step", "energy", "baseline":
                add(name, row.time_ratio, of_case.step)
                add(f"{name}, MiB", row.mebibytes, of_case.step_mebibytes)
            case "denoiser call", "energy", "baseline":
                add(name, row.time_ratio, of_case.call)
            case "training step", "energy", "torchebm":
                add(f"{name} / torchebm", row.time_ratio, of_case.step_of_torchebm)
            case _, "trace and certificate", _:
                add(name, row.time_ratio, TRACE_TARGET)
    return result
