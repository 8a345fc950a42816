"""The shape of V(·, σ): critical points and how they hang together, curvature, asymmetry."""

from energydiff.landscape.asymmetry import jacobian_asymmetry
from energydiff.landscape.critical import CriticalPoints, critical_points, examine
from energydiff.landscape.curvature import Curvature, curvature
from energydiff.landscape.explore import Effort, Landscape, explore, minima
from energydiff.landscape.morse import MorseGraph, morse_graph
from energydiff.landscape.search import descend, newton
from energydiff.landscape.surface import Surface

__all__ = [
    "CriticalPoints",
    "Curvature",
    "Effort",
    "Landscape",
    "MorseGraph",
    "Surface",
    "critical_points",
    "curvature",
    "descend",
    "examine",
    "explore",
    "jacobian_asymmetry",
    "minima",
    "morse_graph",
    "newton",
]
