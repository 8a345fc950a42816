"""Denoising score matching with EDM's weighting (Vincent 2011; Karras et al. 2022, §5)."""

from torch import Tensor

from energydiff.energies.base import Denoiser, per_sample


def denoising_loss(
    denoiser: Denoiser,
    x0: Tensor,
    sigma: Tensor,
    noise: Tensor,
    sigma_data: float,
    label: Tensor | None = None,
) -> Tensor:
    """(1/c_out²) ‖D(x0 + σε, σ) − x0‖² / d per image, (B,).

    With c_out² = σ²σ_d²/(σ²+σ_d²) the target of the raw network has unit variance: a model that
    has learned nothing scores about 1 at every noise.

    Args:
        x0: clean data (B, \\*shape). ``sigma`` (B,), ``noise`` ε ~ N(0, I) like x0.
        sigma_data: σ_d.
        label: (B,), −1 for unknown; only for a model with classes.
    """
    x = x0 + per_sample(sigma, x0) * noise
    error = denoiser.denoise(x, sigma, label) - x0
    weight = (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()
    return weight * error.square().flatten(1).mean(1)
