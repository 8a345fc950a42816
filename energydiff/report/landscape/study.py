"""What a study of a landscape writes beside its critical points: pictures, bifurcations, basins."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from energydiff.data import Normalization
from energydiff.files import write_json
from energydiff.landscape.basins import basin_volume, recovery
from energydiff.landscape.bifurcations.connections import saddle_connections
from energydiff.landscape.bifurcations.diagram import bifurcation_diagram
from energydiff.landscape.bifurcations.families import Noise
from energydiff.landscape.bifurcations.learning import learning_landscape
from energydiff.landscape.exploration import Landscape
from energydiff.landscape.search import descend
from energydiff.landscape.stability import structural_stability
from energydiff.landscape.surface import Surface
from energydiff.progress import with_progress
from energydiff.report.landscape.bifurcation import bifurcation_plot
from energydiff.report.landscape.disconnectivity import disconnectivity_plot
from energydiff.report.landscape.gallery import minima_gallery, saddle_gallery
from energydiff.report.landscape.plane import around, multiples, plane_plot, plane_points
from energydiff.sampling import geometric_sigmas

LEVELS = 11  # of noise that minima are to be found again from
SHORT, LONG = 0.03, 0.1  # steps along a branch, in few dimensions and in many
MOST, FOLLOWED = 200, 4  # branches of a diagram
PANELS = 6  # noise levels of a landscape of the plane
CONNECTED = 16  # dimensions up to which lost points are followed, and saddles to connections


@dataclass(frozen=True)
class Study:
    """A landscape at one σ and the folder that its parts go into; each part says what it found.

    Attributes:
        data: samples of the model's data, (K, \\*shape).
        normalization: of images; ``None`` for others.
    """

    surface: Surface
    data: Tensor
    normalization: Normalization | None
    found: Landscape
    folder: Path

    @property
    def sigma(self) -> float:
        return float(self.found.points.sigma[0])

    def pictures(self) -> list[str]:
        """``disconnectivity.png``; of images ``minima.png`` and ``saddles.png``, in two dimensions
        ``plane.png``."""
        graph, normalization = self.found.graph, self.normalization
        if normalization is not None and normalization.picture_shape(self.surface.shape) is None:
            normalization = None
        disconnectivity_plot(graph, self.folder / "disconnectivity.png", normalization)
        if normalization is not None:
            minima_gallery(graph.minima, normalization, self.folder / "minima.png")
            if graph.merges():
                saddle_gallery(graph, normalization, self.folder / "saddles.png")
        if self.surface.dim == 2:
            plane_plot(self.surface, self.found.points, self.folder / "plane.png", basins=True)
        return [str(structural_stability(graph, self.found.others))]

    def learning(self, surfaces: Sequence[Surface], before: Sequence[Landscape]) -> list[str]:
        """``learning.json``: what the critical points of each earlier model became."""
        points = [one.points for one in (*before, self.found)]
        reach = self.sigma * self.surface.dim**0.5
        followed = None if self.surface.dim <= CONNECTED else -1  # a network's take minutes each
        steps = learning_landscape(surfaces, points, self.sigma, reach, followed=followed)
        write_json(self.folder / "learning.json", [step.plain() for step in steps])
        return [
            f"From model {number} to {number + 1}: {int((step.partner >= 0).sum())} of"
            f" {len(step.partner)} critical points persist, {int((step.partner < 0).sum())} were"
            f" lost ({int(step.fold.isfinite().sum())} of them seen to fold), {len(step.new)} are"
            " new."
            for number, step in enumerate(steps, start=1)
        ]

    def bifurcations(self, sigmas: tuple[float, float]) -> list[str]:
        """``bifurcations.json`` and ``bifurcations.png``: branches and events between two noise
        levels; in two dimensions ``multiples.png`` too."""
        low, high = sorted(sigmas)
        points, small = self.found.points, self.surface.dim <= CONNECTED
        if not small:  # a point of a branch takes seconds, and branches branch
            points = self.found.graph.minima
            points = points[points.free_energy.argsort()[:FOLLOWED]]
        diagram = bifurcation_diagram(
            Noise(self.surface),
            points.x,
            self.sigma,
            (low, high),
            longest=SHORT if small else LONG,
            most=MOST if small else FOLLOWED,
        )
        content, found = diagram.plain(), []
        said = [f"{event.kind} at sigma = {event.parameter:.5f}" for event in diagram.events]
        if small:
            found = saddle_connections(self.surface, diagram)
            content["connections"] = [
                {"kind": c.kind, "sigma": list(c.sigma), "x": c.x.tolist()} for c in found
            ]
            said += [
                f"{c.kind} saddle–saddle connection, sigma from {c.sigma[0]:.5f} to"
                f" {c.sigma[1]:.5f}"
                for c in found
            ]
        write_json(self.folder / "bifurcations.json", content)
        bifurcation_plot(diagram, self.folder / "bifurcations.png", connections=found)
        if self.surface.dim == 2:
            window = around(self.data.flatten(1))
            levels = geometric_sigmas(PANELS - 1, low, high).tolist()
            panels = [plane_points(self.surface, level, window) for level in levels]
            multiples(self.surface, panels, self.folder / "multiples.png", window)
        return [f"{len(diagram.branches)} branches between the noise levels.", *sorted(said)]

    def basins(self, count: int, seed: int) -> list[str]:
        """``basins.json``: from how much noise the lowest minima are found again, and the volumes
        of their basins.

        Noise is taken back by sampling down to the σ of the landscape and by descent there.
        """
        minima, sigma, coarse = self.found.graph.minima, self.sigma, self.surface.coarse
        lowest = minima[minima.free_energy.argsort()[:count]]
        apart = torch.pdist(minima.x.flatten(1))
        delta = 0.25 * float(apart.min()) if len(apart) else sigma * self.surface.dim**0.5
        most = torch.inf if coarse.energy.noise is None else coarse.energy.noise.sigma_max
        found = recovery(
            coarse.energy,
            lowest.x.to(coarse.device, coarse.dtype),
            geometric_sigmas(LEVELS, sigma, min(most, 20 * sigma)).flip(0)[1:],
            delta=delta,
            rest=lambda x: coarse.shaped(descend(coarse, coarse.flat(x), sigma, steps=500)),
            sigma_min=sigma,
            seed=seed,
        )
        states = self.surface.flat(minima.x)
        numbers = minima.free_energy.argsort()[:count].tolist()
        longest = 4 * sigma * self.surface.dim**0.5
        rays, bisections = (64, 8) if self.surface.dim <= CONNECTED else (16, 5)
        volumes = [
            basin_volume(
                self.surface, sigma, states, n, longest=longest, rays=rays, bisections=bisections
            )
            for n in with_progress(numbers, count, "Measuring basins")
        ]
        content = {
            "minima": numbers,
            "sigma": found.sigma.tolist(),
            "delta": delta,
            "recovered": dict(zip(("share", "low", "high"), found.curve.tolist(), strict=True)),
            "critical_noise": found.critical_noise().tolist(),
            "radius": found.radius().tolist(),
            "log_volume": [volume.log_volume for volume in volumes],
            "log_volume_error": [volume.error for volume in volumes],
            "unbounded_rays": [volume.capped for volume in volumes],
        }
        write_json(self.folder / "basins.json", content)
        middle = float(found.critical_noise().median())
        return [
            f"Of the {len(lowest)} lowest minima the median is found again from noise up to"
            f" {middle:.3g} (9 of 10 trials)."
        ]
