"""The landscape of a model: ``energydiff landscape runs/a --sigma 0.3 --out out/landscape``."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from energydiff.cli.parser import function_parser
from energydiff.data.normalization import Normalization
from energydiff.energies import Denoiser, EmpiricalData
from energydiff.errors import UserError
from energydiff.files import digest_file
from energydiff.landscape.exploration import Effort, explore
from energydiff.landscape.record import Stages, write_landscape
from energydiff.landscape.surface import Surface
from energydiff.memory import Memory
from energydiff.report.landscape.study import Study
from energydiff.saving import checkpoint_of, open_model
from energydiff.training.data import DiffusionData


@dataclass(frozen=True)
class Subject:
    """What a landscape is of.

    Attributes:
        model: the energy.
        data: samples that searches start from and points are compared with, (K, \\*shape).
        normalization: of images; ``None`` for points.
        digest: SHA-256 of the weights, or of nothing.
    """

    model: Denoiser
    data: Tensor
    normalization: Normalization | None
    digest: str


def landscape(
    model: Path | None = None,
    points: list[list[float]] | None = None,
    sigma: float = 0.3,
    sigmas: tuple[float, float] | None = None,
    checkpoints: list[Path] | None = None,
    basins: int = 0,
    label: int | None = None,
    effort: Effort = Effort(),  # noqa: B008  (never changed)
    seed: int = 0,
    threads: int | None = None,
    out: Path = Path("out/landscape"),
) -> None:
    """Find minima, saddles and the graph that they make of a model's energy at one noise level.

    Writes critical_points.npz, graph.json, graph.graphml, landscape.json and pictures; the same
    command goes on from where it was interrupted.

    Args:
        model: A run folder, a checkpoint or an exported model, trained or a memory.
        points: Instead of a model, a data set as an exact energy: [[0, 0], [1, 0]]
        sigma: Noise level at which V is looked at; 1 for the energy of a memory.
        sigmas: Follow what was found from the lower to the higher of two noise levels, with all
            that branches off: bifurcations.json
        checkpoints: Earlier checkpoints of the run, in order, to say what each critical point
            became while it trained: learning.json
        basins: Noise this many of the lowest minima and see from where they return: basins.json
        label: Class index, for a model with labels.
        effort: How hard to look.
        seed: Of the starts.
        threads: Of the CPU; all by default.
        out: Folder to write into.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    subject = _subject(model, points)
    earlier = [_subject(path, None) for path in checkpoints or []]
    if label is not None:
        subject.model.check(subject.data[:1], torch.tensor([label]))
    settings = {
        "model": None if model is None else str(model),
        "points": points,
        "checkpoints": [str(path) for path in checkpoints or []],
        "weights": [one.digest for one in (*earlier, subject)],
        "sigma": sigma,
        "sigmas": sigmas,
        "label": label,
        "effort": asdict(effort),
        "seed": seed,
        "basins": basins,
    }
    surfaces = [Surface(one.model, label) for one in (*earlier, subject)]
    for level in (sigma, *(sigmas or ())):
        surfaces[-1].check(level)
    stages = Stages(out, settings)
    *before, found = [
        explore(surface, subject.data, sigma, effort, seed=seed, stage=stages.of(number))
        for number, surface in enumerate(surfaces)
    ]
    record = write_landscape(found, subject.data, settings, out)
    study = Study(surfaces[-1], subject.data, subject.normalization, found, out)
    said = [*record["found"], *study.pictures()]
    if before:
        said += study.learning(surfaces, before)
    if sigmas is not None:
        said += study.bifurcations(sigmas)
    if basins:
        said += study.basins(basins, seed)
    stages.done()
    Console().print(_table(record, out))
    print("\n".join(said))


def _subject(model: Path | None, points: list[list[float]] | None) -> Subject:
    if (model is None) == (points is None):
        raise UserError("a landscape is of one thing: give a model, or --points.")
    if points is not None:
        try:
            data = torch.tensor(points, dtype=torch.float64)
        except ValueError as error:
            raise UserError(f"--points must be rows of equal length: {error}.") from error
        return Subject(EmpiricalData(data), data, None, "")
    assert model is not None
    saved = open_model(model)
    file = checkpoint_of(model) or model / "model.safetensors"
    saved.denoiser.require_energy()
    if isinstance(saved.denoiser, Memory):
        data = saved.denoiser.patterns
    else:
        data = DiffusionData.of_run(saved.config).train_source.clean()
    return Subject(saved.denoiser, data, saved.normalization, digest_file(file))


def _table(record: dict[str, Any], out: Path) -> Table:
    table = Table(title=f"V(·, {record['sigma']:g}), in {out}")
    for column in ("index", "found", "V from", "to", "least margin"):
        table.add_column(column)
    by_index: dict[int, list[dict[str, Any]]] = {}
    for point in record["critical_points"]:
        by_index.setdefault(point["index"], []).append(point)
    for index, rows in sorted(by_index.items()):
        values = [row["V"] for row in rows]
        margin = min(row["margin"] for row in rows)
        table.add_row(
            str(index), str(len(rows)), f"{min(values):.4g}", f"{max(values):.4g}", f"{margin:.2g}"
        )
    return table


def main(arguments: Sequence[str]) -> int:
    """0."""
    given = list(arguments[1:])
    if given and not given[0].startswith("-"):
        given[0] = f"--model={given[0]}"
    parser = function_parser(landscape, "energydiff landscape", usage="[MODEL]")
    parser.add_argument("--config", action="config", help="A file with these options.")
    read = parser.parse_args(given)
    options = parser.instantiate(read).as_dict()
    options.pop("config", None)
    landscape(**options)
    return 0
