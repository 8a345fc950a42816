"""The shape of V(·, σ): critical points and how they hang together, curvature, asymmetry."""

from energydiff.landscape.asymmetry import jacobian_asymmetry
from energydiff.landscape.bifurcations.branches import Branch
from energydiff.landscape.bifurcations.connections import Connection, saddle_connections
from energydiff.landscape.bifurcations.cusps import Cusp, FoldCurve, fold_curve
from energydiff.landscape.bifurcations.diagram import Diagram, bifurcation_diagram
from energydiff.landscape.bifurcations.events import Event
from energydiff.landscape.bifurcations.families import Energies, Homotopy, Noise
from energydiff.landscape.bifurcations.learning import Step, learning_landscape
from energydiff.landscape.critical import CriticalPoints, critical_points, examine
from energydiff.landscape.curvature import Curvature, curvature
from energydiff.landscape.exploration import Effort, Landscape, explore, minima
from energydiff.landscape.morse import MorseGraph, morse_graph
from energydiff.landscape.search import descend, newton
from energydiff.landscape.surface import Surface

__all__ = [
    "Branch",
    "Connection",
    "CriticalPoints",
    "Curvature",
    "Cusp",
    "Diagram",
    "Effort",
    "Energies",
    "Event",
    "FoldCurve",
    "Homotopy",
    "Landscape",
    "MorseGraph",
    "Noise",
    "Step",
    "Surface",
    "bifurcation_diagram",
    "critical_points",
    "curvature",
    "descend",
    "examine",
    "explore",
    "fold_curve",
    "jacobian_asymmetry",
    "learning_landscape",
    "minima",
    "morse_graph",
    "newton",
    "saddle_connections",
]
