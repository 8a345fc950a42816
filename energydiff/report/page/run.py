"""What a run folder or an export says of a training, beside the weights."""

import csv
from pathlib import Path

from energydiff.errors import UserError
from energydiff.saving import CHECKPOINT_KEY, checkpoint_of, read_checkpoint, read_description

Series = list[tuple[float, float]]


def run_name(path: str | Path) -> str:
    """What a page that is sent calls a model: its folder's name, with what follows of a file's."""
    path = Path(path).resolve()
    return "/".join(path.parts[-3:]) if path.suffix == ".ckpt" else path.name


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


def read_training(path: Path) -> tuple[int | None, dict[str, str]]:
    """Images seen, ``None`` where only an export is left, and versions of the packages at work.

    Args:
        path: a run folder, a checkpoint or an export, one that ``open_model`` has opened.
    """
    file = checkpoint_of(path)
    checkpoint = {} if file is None else read_checkpoint(file, mmap=True)
    described = read_description(path) if file is None else checkpoint[CHECKPOINT_KEY]
    versions = {name: str(v) for name, v in described.get("versions", {}).items()}
    steps = checkpoint.get("global_step")
    batch = described.get("config", {}).get("data", {}).get("batch_size")
    return (steps * batch if batch and steps else None), versions


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
