"""Reports: figures of samples and of the Lyapunov function. The only room that plots."""

from energydiff.report.free_energy import free_energy_plot
from energydiff.report.recall import recall_plot
from energydiff.report.retrieval import retrieval_rows
from energydiff.report.samples import comparison_grid, sample_grid, samples_with_traces
from energydiff.report.trace import load_trace

__all__ = [
    "comparison_grid",
    "free_energy_plot",
    "load_trace",
    "recall_plot",
    "retrieval_rows",
    "sample_grid",
    "samples_with_traces",
]
