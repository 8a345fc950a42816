"""What an energy costs: its networks, what is timed, and the ratios with their targets."""

from benchmarks.cost.work import denoiser_call, training_step, without_zeros

__all__ = ["denoiser_call", "training_step", "without_zeros"]
