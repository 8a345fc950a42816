"""From memorising to generalising: a study over training-set sizes, and what it is made of."""

from energydiff.memorisation.design import Design, Run
from energydiff.memorisation.halves import Halves, compare_halves
from energydiff.memorisation.looking import Looks
from energydiff.memorisation.minima import (
    ExactMinima,
    Rest,
    Scan,
    Window,
    exact_minima,
    fates,
    rest,
    scan,
    spurious_window,
)
from energydiff.memorisation.phases import Phase, Rule, Sorted, sort_samples
from energydiff.memorisation.states import (
    States,
    local_dimension,
    measure_states,
)
from energydiff.memorisation.study import Study
from energydiff.memorisation.times import Growth, generalising_time, growth, memorising_time

__all__ = [
    "Design",
    "ExactMinima",
    "Growth",
    "Halves",
    "Looks",
    "Phase",
    "Rest",
    "Rule",
    "Run",
    "Scan",
    "Sorted",
    "States",
    "Study",
    "Window",
    "compare_halves",
    "exact_minima",
    "fates",
    "generalising_time",
    "growth",
    "local_dimension",
    "measure_states",
    "memorising_time",
    "rest",
    "scan",
    "sort_samples",
    "spurious_window",
]
