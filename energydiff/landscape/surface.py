"""V(·, σ) as a function whose critical points are sought: values, slopes and Hessians.

    ∇V = x − D(x, σ),    ∇²V = I − ∇D,    ∂∇V/∂σ = ∇(∂V/∂σ)

all of flat states (B, d), each at a noise of its own. A critical point is a fixed point of the
denoiser; its Morse index is the number of negative eigenvalues of ∇²V.
"""

import copy
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from energydiff.derivatives import differentiable
from energydiff.energies.base import Denoiser, Energy, Sigma, per_sample, sigma_vector
from energydiff.errors import UserError
from energydiff.random import PROBE, keyed_normal

Product = Callable[[Tensor], Tensor]


class Surface:
    """The free energy V of an energy and its derivatives, on the energy's device.

    Args:
        model: an energy, closed form, memory or trained; a copy of it is taken.
        label: class of all states; ``None`` without.
        chunk: states that are differentiated together.
        dtype: of states and derivatives.

    Raises:
        NoEnergyError: the model is an unconstrained denoiser.
        UserError: it is not twice differentiable, or its device has no float64.
    """

    def __init__(
        self,
        model: Denoiser,
        label: int | None = None,
        chunk: int = 128,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.energy: Energy = copy.deepcopy(model.require_energy()).eval().requires_grad_(False)
        tensors = [*self.energy.parameters(), *self.energy.buffers()]
        self.device = tensors[0].device if tensors else torch.device("cpu")
        if self.device.type == "mps":
            raise UserError("a landscape needs float64, which mps does not have: move the model.")
        self.energy.to(dtype)
        self.shape, self.dim = tuple(self.energy.shape), self.energy.dim
        self.label, self.chunk, self.dtype = label, chunk, dtype

    @cached_property
    def coarse(self) -> "Surface":
        """The same in float32, for the way to a critical point: several times cheaper where a
        network computes V, and itself where a formula does."""
        trained = any(True for _ in self.energy.parameters())
        return Surface(self.energy, self.label, self.chunk, torch.float32) if trained else self

    def flat(self, x: Tensor) -> Tensor:
        """Samples (B, \\*shape) as states (B, d)."""
        return x.detach().to(self.device, self.dtype).reshape(len(x), self.dim)

    def shaped(self, x: Tensor) -> Tensor:
        """States (B, d) as samples (B, \\*shape)."""
        return x.view(len(x), *self.shape)

    def check(self, sigma: Sigma, seed: int = 0) -> None:
        """``UserError`` unless every σ is within the model's range and V twice differentiable.

        The second is tried at a random state, where ∇²V must be the difference quotient of ∇V.
        """
        self._check_range(torch.as_tensor(sigma, dtype=torch.float64).flatten())
        level, step = float(torch.as_tensor(sigma).flatten()[0]), 1e-5
        x, v = keyed_normal(seed, range(2), (self.dim,), PROBE).to(self.device, self.dtype)
        x, v = 0.5 * x[None], (v / v.norm())[None]
        told = f"{type(self.energy).__name__} is not twice differentiable, as a landscape needs it"
        try:
            exact = self.product(x, level)(v)
        except RuntimeError as error:
            raise UserError(f"{told}: {str(error).splitlines()[0]}") from error
        ahead, behind = (self.gradient(x + s * v, level)[1] for s in (step, -step))
        quotient = (ahead - behind) / (2 * step)
        if not bool((exact - quotient).norm() <= 1e-2 * (exact.norm() + quotient.norm()) + 1e-4):
            raise UserError(f"{told}: its second derivative is not that of its gradient.")

    def _check_range(self, sigma: Tensor) -> None:
        noise = self.energy.noise
        low, high = (0.0, torch.inf) if noise is None else noise
        wrong = sigma[~((sigma > 0) & (sigma >= low * (1 - 1e-9)) & (sigma <= high * (1 + 1e-9)))]
        if len(wrong):
            ends = "above 0" if noise is None else f"from {low:g} to {high:g}"
            raise UserError(
                f"sigma = {wrong[0].item():g} is outside the range of this"
                f" {type(self.energy).__name__}, {ends}."
            )

    def value(self, x: Tensor, sigma: Sigma) -> Tensor:
        """V, (B,)."""
        return self.gradient(x, sigma)[0]

    def gradient(self, x: Tensor, sigma: Sigma) -> tuple[Tensor, Tensor]:
        """V (B,) and ∇V (B, d); of no state at all, nothing."""
        if not len(x):
            return x.new_empty(0), torch.empty_like(x)
        levels = sigma_vector(sigma, x)
        parts = [
            self._gradient(part, level)
            for part, level in zip(x.split(self.chunk), levels.split(self.chunk), strict=True)
        ]
        return torch.cat([v for v, _ in parts]), torch.cat([g for _, g in parts])

    def product(self, x: Tensor, sigma: Sigma) -> Product:
        """v ↦ ∇²V v of the states x, (B, d) to (B, d).

        The gradient's graph is made once and walked back for every v.
        """
        if not len(x):
            return lambda v: v
        levels = sigma_vector(sigma, x)
        graphs = []
        for part, level in zip(x.split(self.chunk), levels.split(self.chunk), strict=True):
            with differentiable(x.device, autocast=False):
                leaf = part.detach().requires_grad_()
                graphs.append((leaf, self._gradient(leaf, level)[1]))

        def product(v: Tensor) -> Tensor:
            parts = zip(graphs, v.split(self.chunk), strict=True)
            return torch.cat(
                [
                    torch.autograd.grad(g, leaf, part, retain_graph=True)[0].detach()
                    for (leaf, g), part in parts
                ]
            )

        return product

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        """∇²V, (B, d, d), by d products; symmetric but for rounding, which is averaged out."""
        return dense(self.product(x, sigma), x)

    def noise_gradient(self, x: Tensor, sigma: Sigma) -> Tensor:
        """∂∇V/∂σ, (B, d), as ∇ of ∂V/∂σ = (2V + σ²(∂E/∂log σ − n d))/σ."""
        levels = sigma_vector(sigma, x)
        parts = []
        for part, level in zip(x.split(self.chunk), levels.split(self.chunk), strict=True):
            with differentiable(x.device, autocast=False):
                leaf = part.detach().requires_grad_()
                slope = self.energy.free_energy_slope(
                    self.shaped(leaf), level, self._labels(len(leaf))
                )
                parts.append(torch.autograd.grad(slope.sum(), leaf)[0])
        return torch.cat(parts)

    def _gradient(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        energy, grad = self.energy.value_and_grad(self.shaped(x), sigma, self._labels(len(x)))
        slope = per_sample(sigma, x).square() * grad.flatten(1)
        return self.energy.energy_to_free_energy(energy, sigma), slope

    def _labels(self, count: int) -> Tensor | None:
        if self.label is None:
            return None
        return torch.full((count,), self.label, dtype=torch.int64, device=self.device)


def dense(product: Product, x: Tensor) -> Tensor:
    """The symmetric matrix of each state of x (B, d) that ``product`` applies, (B, d, d)."""
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    matrix = torch.stack([product(unit.expand_as(x)) for unit in eye], 1)
    return 0.5 * (matrix + matrix.mT)
