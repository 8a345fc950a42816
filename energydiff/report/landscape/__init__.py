"""Pictures of landscapes: of the plane, and of how minima in any dimension hang together."""

from energydiff.report.landscape.disconnectivity import disconnectivity_plot
from energydiff.report.landscape.plane import around, multiples, plane_plot, plane_points

__all__ = ["around", "disconnectivity_plot", "multiples", "plane_plot", "plane_points"]
