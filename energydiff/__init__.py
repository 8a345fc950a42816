"""energydiff: diffusion models that are the gradient of a scalar energy."""

from energydiff._torchvision import guard_torchvision

guard_torchvision()  # before anything imports lightning or torch-fidelity

from energydiff._version import __version__  # noqa: E402
from energydiff.energies import Denoiser, Energy  # noqa: E402
from energydiff.errors import NoEnergyError, UserError  # noqa: E402
from energydiff.saving import load, open_model, save_model  # noqa: E402

__all__ = [
    "Denoiser",
    "Energy",
    "NoEnergyError",
    "UserError",
    "__version__",
    "load",
    "open_model",
    "save_model",
]
