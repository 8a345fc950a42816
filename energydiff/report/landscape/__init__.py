"""Pictures of landscapes: of the plane, over noise, and of how minima hang together."""

from energydiff.report.landscape.animation import landscape_animation
from energydiff.report.landscape.bifurcation import bifurcation_plot
from energydiff.report.landscape.disconnectivity import disconnectivity_plot
from energydiff.report.landscape.gallery import minima_gallery, saddle_gallery
from energydiff.report.landscape.plane import around, multiples, plane_plot, plane_points

__all__ = [
    "around",
    "bifurcation_plot",
    "disconnectivity_plot",
    "landscape_animation",
    "minima_gallery",
    "multiples",
    "plane_plot",
    "plane_points",
    "saddle_gallery",
]
