"""Learning from a denoiser that one already has, instead of from the data behind it.

The target x0 of denoising is a draw from the posterior whose mean is the optimum. With x = x0 + σε

    E‖D(x) − x0‖² = E‖D(x) − E[x0 | x]‖² + E‖x0 − E[x0 | x]‖²

and the last term, which no model can lower, is what makes the gradient of the loss noisy. A trained
denoiser D_T knows the mean. Regressed on D_T(x) instead of x0, an energy is drawn to the
conservative field nearest to the teacher's (Thornton et al. 2025), at the noisy data of every σ.
The time score has no such teacher: E[d − ‖ε‖² | x] would take the divergence of D_T, so its target
stays d − ‖ε‖².
"""

from dataclasses import replace
from typing import Any, Self

import torch

from energydiff.diffusion.batch import NoisyBatch
from energydiff.energies.base import Denoiser
from energydiff.errors import UserError


class Teacher:
    """A frozen denoiser that says what the mean of noisy data is.

    It is no part of what learns from it: no module that holds it has its weights in a state dict,
    and copies of that module share it.

    Args:
        denoiser: of the same samples, labels and noise levels; moved to where it is asked.

    Raises:
        UserError: it is noise-blind, and has no posterior mean.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        if denoiser.noise_blind:
            raise UserError(
                "the teacher is noise-blind and has no posterior mean to learn from: give a"
                " denoiser, or an energy that knows its noise."
            )
        self.denoiser = denoiser.eval().requires_grad_(False)

    @torch.no_grad()
    def inform(self, batch: NoisyBatch) -> NoisyBatch:
        """The batch with D_T(x, σ) as its ``mean``; without classes it is asked without labels."""
        label = batch.label if self.denoiser.num_classes else None
        denoiser = self.denoiser.to(batch.x0.device)
        return replace(batch, mean=denoiser.denoise(batch.x, batch.sigma, label))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
