"""What a run logged, read back from its own record."""

import csv
from pathlib import Path

from energydiff.errors import UserError

Series = list[tuple[float, float]]


def read_metrics(run: Path) -> dict[str, Series]:
    """What a run logged: by name, pairs of images seen and value, in the order of images.

    A run that was resumed has a CSV file for each start; where two overlap, the later start counts.
    Empty where ``run`` holds no metrics, as an export does.

    Raises:
        UserError: a file cannot be read as metrics.
    """
    files = sorted(run.glob("metrics/version_*/metrics.csv"), key=_start)
    if not files:
        return {}
    series: dict[str, dict[float, float]] = {}
    for file in files:
        started = {name: points for name, points in _read(file).items() if points}
        first = min((min(points) for points in started.values()), default=0.0)
        for points in series.values():
            for images in [images for images in points if images >= first]:
                del points[images]
        for name, points in started.items():
            series.setdefault(name, {}).update(points)
    return {name: sorted(points.items()) for name, points in series.items() if points}


def _start(file: Path) -> int:
    number = file.parent.name.removeprefix("version_")
    return int(number) if number.isdigit() else -1


def _read(file: Path) -> dict[str, dict[float, float]]:
    series: dict[str, dict[float, float]] = {}
    try:
        with file.open(newline="") as stream:
            for row in csv.DictReader(stream):
                images = float(row.pop("step"))
                row.pop("epoch", None)
                for name, cell in row.items():
                    if cell:
                        series.setdefault(name, {})[images] = float(cell)
    except (OSError, LookupError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"{file} cannot be read as metrics of a run ({error}); move it away to do without."
        ) from error
    return series
