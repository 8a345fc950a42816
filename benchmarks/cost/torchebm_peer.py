"""An energy by torchebm's own classes; the package is imported by this file alone."""

from torch import Tensor, nn
from torchebm.core import BaseModel
from torchebm.losses import DenoisingScoreMatching

from benchmarks.cost.peers import PlainAutograd


class TorchEBM(PlainAutograd):
    """E(x, σ) as a torchebm model, σ being what it calls conditioning."""

    def __init__(self, energy: nn.Module) -> None:
        super().__init__(_Model(energy))
        self.loss = DenoisingScoreMatching(self.energy)

    def gradient(self, x: Tensor, sigma: Tensor) -> Tensor:
        conditioning = {"sigma": sigma}
        if not self.training:
            return self.energy.gradient(x, model_kwargs=conditioning)
        return self.loss.compute_score(x.detach(), model_kwargs=conditioning)


class _Model(BaseModel):
    def __init__(self, energy: nn.Module) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.energy(x, sigma)
