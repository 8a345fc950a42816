"""The same energy as other packages have it differentiated, to be timed beside ours.

``plain autograd`` is ``torch.autograd.grad(create_graph=True)``. ``torchebm`` goes by that package:
the energy is a ``BaseModel``, a training step takes ∇E from the ``compute_score`` of its
``DenoisingScoreMatching``, through which all of its score matching runs, and a call from
``BaseModel.gradient``. Its other way to the score, ``use_autograd=False``, took as long.
"""

from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks.cost.plain import PlainEnergy
from energydiff.denoisers import EnergyDenoiser

MISSING = "torchebm is not installed, so its column is left out: pip install -e '.[peers]'"
TOLERANCE = 1e-5  # of E and ∇E, relative


class PlainAutograd(nn.Module):
    """An energy differentiated by one call of autograd.

    Args:
        energy: E(x, σ), (B,).
    """

    def __init__(self, energy: nn.Module) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.energy(x, sigma)

    def gradient(self, x: Tensor, sigma: Tensor) -> Tensor:
        """∇E, like x, with a graph in training."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (grad,) = torch.autograd.grad(self(leaf, sigma).sum(), leaf, create_graph=self.training)
        return grad

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D = x − σ²∇E."""
        return x - sigma.square().view(-1, 1, 1, 1) * self.gradient(x, sigma)


def peers_of(model: EnergyDenoiser) -> dict[str, PlainAutograd]:
    """The model's energy by every peer that is installed, each with a copy of its weights.

    Raises:
        RuntimeError: a peer's energy or gradient is another one.
    """
    result: dict[str, PlainAutograd] = {"plain autograd": PlainAutograd(PlainEnergy(model))}
    if find_spec("torchebm"):
        # torchebm allows TF32 for the whole process when it is imported.
        precision = torch.get_float32_matmul_precision()
        from benchmarks.cost.torchebm_peer import TorchEBM

        torch.set_float32_matmul_precision(precision)
        result["torchebm"] = TorchEBM(PlainEnergy(model))
    device = next(model.parameters()).device
    for name, peer in result.items():
        _require_equal(name, peer.to(device), model)
    return result


def _require_equal(name: str, peer: PlainAutograd, model: EnergyDenoiser) -> None:
    like = next(model.parameters())
    sigma = torch.tensor([0.1, 1.0, 5.0]).to(like)
    x = sigma.view(-1, 1, 1, 1) * torch.randn(3, *model.shape).to(like)
    for training in (True, False):
        ours = model.train(training).value_and_grad(x, sigma)
        theirs = peer.train(training)(x, sigma), peer.gradient(x, sigma)
        for quantity, a, b in zip(("energy", "gradient"), ours, theirs, strict=True):
            error = float(((a - b).norm() / a.norm()).detach())
            if not error <= TOLERANCE:
                raise RuntimeError(f"{quantity} by {name} differs by {error:.1e} of its size")
