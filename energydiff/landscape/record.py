"""A study of a landscape in a folder: stages that are kept while it is made, and what it found."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx
import torch
from torch import Tensor

from energydiff.errors import UserError
from energydiff.files import whole, write_json
from energydiff.landscape.critical import CriticalPoints, nearest
from energydiff.landscape.exploration import Landscape, Stage
from energydiff.landscape.morse import MorseGraph


class Stages:
    """Keeps the critical points that each stage found, so that the same study goes on from there.

    Args:
        folder: of the study.
        settings: all that the results depend on.

    Raises:
        UserError: the folder holds a study of other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder / "stages"
        record = folder / "settings.json"
        now = json.loads(json.dumps(settings))
        if record.is_file():
            then = json.loads(record.read_text())
            changed = sorted(name for name in now | then if now.get(name) != then.get(name))
            if changed:
                raise UserError(
                    f"{folder} holds a landscape made with other settings ({', '.join(changed)}):"
                    " give another --out, or remove it."
                )
        write_json(record, now)

    def of(self, model: int) -> Stage:
        """The stages of one of several models."""

        def stage(name: str, work: Callable[[], CriticalPoints]) -> CriticalPoints:
            file = self.folder / f"{model}_{name.replace(' ', '_')}.npz"
            if file.is_file():
                return CriticalPoints.open(file)
            points = work()
            points.save(file)
            return points

        return stage

    def done(self) -> None:
        """The study is written: the stages are no longer needed."""
        shutil.rmtree(self.folder, ignore_errors=True)


def write_landscape(
    landscape: Landscape, data: Tensor, about: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Write ``critical_points.npz``, ``graph.json``, ``graph.graphml`` and ``landscape.json``.

    Args:
        data: the samples that each point's nearest is looked for among, (K, \\*shape).
        about: the model and settings.

    Returns:
        What ``landscape.json`` says.
    """
    points, graph = landscape.points, landscape.graph
    points.save(folder / "critical_points.npz")
    write_json(folder / "graph.json", graph.node_link())
    with whole(folder / "graph.graphml") as partial:
        networkx.write_graphml(graph.network(), partial)
    record = about | summary(landscape) | {"critical_points": _rows(points, data)}
    write_json(folder / "landscape.json", record)
    return record


def open_landscape(folder: Path) -> Landscape:
    """What :func:`write_landscape` wrote, but for branches that end in no minimum.

    Raises:
        UserError: the folder holds no landscape.
    """
    points = CriticalPoints.open(folder / "critical_points.npz")
    minima, saddles = points.of_index(0), points.of_index(1)
    ends = torch.full((len(saddles), 2), -1)
    try:
        for edge in json.loads((folder / "graph.json").read_text())["edges"]:
            ends[edge["saddle"]] = torch.tensor([edge["source"], edge["target"]])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{folder} holds no graph of a landscape: {error}.") from error
    nothing = torch.full_like(ends, -1)
    graph = MorseGraph(minima, saddles, ends, nothing, nothing > 0)
    return Landscape(graph, points[points.index > 1])


def summary(landscape: Landscape) -> dict[str, Any]:
    """Counts, and what was and was not found."""
    points, graph = landscape.points, landscape.graph
    parts = [len(part) for part in graph.components()]
    counts = torch.bincount(points.index).tolist()
    unclear = int((~points.trusted).sum())
    return {
        "counts": {f"index {index}": count for index, count in enumerate(counts) if count},
        "euler_sum": points.euler_sum,
        "complete": points.euler_sum == 1,
        "parts": parts,
        "lost_branches": int(((graph.ends < 0) & (graph.hits < 0)).sum()),
        "saddle_connections": _connections(graph),
        "flips": int(graph.flips.sum()),
        "largest_grad_norm": float(points.grad_norm.max()),
        "least_margin": float(points.margin.min()),
        "proved": bool(points.proved.all()) and unclear == 0,
        "not_trusted": unclear,
        "found": _sentences(points, graph, parts),
    }


def _sentences(points: CriticalPoints, graph: MorseGraph, parts: list[int]) -> list[str]:
    """What was and was not found, in words."""
    said = [
        f"{len(graph.minima)} minima, {len(graph.saddles)} saddles of index 1 and"
        f" {len(points) - len(graph.minima) - len(graph.saddles)} critical points of higher index."
    ]
    if points.euler_sum == 1:
        said.append("Σ(−1)^index is 1, as it is for all critical points together.")
    else:
        said.append(
            f"Σ(−1)^index is {points.euler_sum}, not 1: critical points were not found, which in"
            " many dimensions is to be expected."
        )
    if len(parts) == 1:
        said.append("The Morse graph is connected.")
    else:
        said.append(
            f"The Morse graph falls into {len(parts)} parts, the largest of {parts[0]} minima: no"
            " saddle was found whose branches join them."
        )
    hits = _connections(graph)
    if hits:
        said.append(
            f"Unstable branches that end on another saddle: {len(hits)}. The landscape is not"
            " structurally stable at this σ."
        )
    lost = int(((graph.ends < 0) & (graph.hits < 0)).sum())
    if lost:
        said.append(f"Of {graph.ends.numel()} branches {lost} came to no rest in time.")
    return said


def _connections(graph: MorseGraph) -> list[list[int]]:
    """Pairs of numbers of saddles, from and to."""
    return [[i, int(to)] for i, row in enumerate(graph.hits.tolist()) for to in row if to >= 0]


def _rows(points: CriticalPoints, data: Tensor) -> list[dict[str, Any]]:
    """Each point as plain data; arrays are in the npz file."""
    distance, sample = nearest(points.x, data)
    claims = [
        ("proved" if proved else "observed") if trusted else "no"
        for proved, trusted in zip(points.proved.tolist(), points.trusted.tolist(), strict=True)
    ]
    columns = {
        "index": points.index.tolist(),
        "V": points.free_energy.tolist(),
        "E": points.energy.tolist(),
        "grad_norm": points.grad_norm.tolist(),
        "margin": points.margin.tolist(),
        "newton": points.newton.tolist(),
        "trust": claims,
        "nearest_sample": sample.tolist(),
        "distance": distance.tolist(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
