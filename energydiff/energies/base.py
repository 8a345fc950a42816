"""What an energy is, and the one gate through which it is differentiated.

An energy is a scalar E(x, σ) = −log p_σ(x) in nats, where p_σ is the data density convolved with
N(0, σ²I). Everything else follows from it:

    score          s = −∇E
    denoiser       D = x − σ²∇E                                (Tweedie: E[x0 | x])
    free energy    V = σ² [E − (d/2) log 2πσ²]  ≥ 0            the Lyapunov function
    its gradient   ∇V = x − D

V is half the soft squared distance to the data: V → ½ dist(x, data)² as σ → 0.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from energydiff.errors import NoEnergyError, UserError

Sigma = float | Tensor


class Denoiser(nn.Module, ABC):
    """A posterior mean D(x, σ) = E[x0 | x0 + σε = x] over samples of one shape.

    Attributes:
        shape: shape of one sample, ``(C, H, W)`` or ``(d,)``.
        num_classes: number of class labels; 0 if the model takes none.
    """

    shape: tuple[int, ...]
    num_classes: int = 0

    @abstractmethod
    def denoise(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        """Posterior mean, like ``x`` (B, \\*shape).

        ``sigma`` is a positive noise level, scalar or (B,). ``label`` is (B,) integers, −1 where
        the class is unknown; ``None`` means unknown for all.
        """

    @property
    def energy(self) -> "Energy | None":
        """The energy this denoiser is the gradient of; ``None`` if there is none."""
        return None

    @property
    def dim(self) -> int:
        """d, the number of scalars in one sample."""
        return math.prod(self.shape)

    def require_energy(self) -> "Energy":
        """The energy, or ``NoEnergyError`` for a model that has none."""
        if self.energy is None:
            raise NoEnergyError(
                f"{type(self).__name__} is an unconstrained denoiser: its field is not the gradient"
                " of an energy, so it has no energy, free energy, trace or certificate."
            )
        return self.energy


class Energy(Denoiser):
    """A scalar energy E(x, σ) in nats. A subclass writes only ``forward``.

    A subclass may also override ``value_and_grad`` with an analytic gradient, which must equal
    autograd's.

    Attributes:
        exact: E is the true −log p_σ of some data density, so the theorems on the Lyapunov function
            hold for it and a certificate may say ``proved``.
        convex_denoiser: D is the gradient of a convex function by construction, so that the theorem
            on the descent part holds.
        noise_blind: σ is only a temperature, E = H(x)/σ², and there is no noise to go down.
        densities: n, how many noised densities E multiplies: 1 unless composed. V takes the
            noise's constant out of E that many times, so the V of a sum is the sum of the V's.
    """

    exact: bool = False
    convex_denoiser: bool = False
    noise_blind: bool = False
    densities: float = 1.0

    @abstractmethod
    def forward(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        """E(x, σ) in nats, (B,). Shapes as in :meth:`Denoiser.denoise`."""

    def __call__(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        """:meth:`forward`, in float32 or wider unless training.

        Energies, traces and line searches need it: a bfloat16 value is off by half a nat where a
        step changes E by two.
        """
        require_samples(self, x)
        require_labels(self, x, label)
        if self.training:
            return super().__call__(x, sigma, label)
        with torch.autocast(x.device.type, enabled=False):
            return super().__call__(at_least_float32(x), sigma, label)

    @property
    def energy(self) -> "Energy":
        return self

    def value_and_grad(
        self, x: Tensor, sigma: Sigma, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """E (B,) and ∇E (like x) in one pass.

        The result is the same under ``fit``, ``validate``, ``test``, ``predict``, ``no_grad`` and
        ``inference_mode``. A graph through ∇E is kept only where somebody can want it: gradients
        are enabled, and either the model is training or ``x`` itself requires a gradient.
        """
        create_graph = torch.is_grad_enabled() and (x.requires_grad or self._trains())
        with self._differentiable(x, sigma, label, keep=create_graph) as (x, sigma, label):
            energy = self(x, sigma, label)
            (grad,) = torch.autograd.grad(energy.sum(), x, create_graph=create_graph)
        return (energy if create_graph else energy.detach()), grad

    def score(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        """∇ log p_σ(x) = −∇E, like ``x``."""
        return -self.value_and_grad(x, sigma, label)[1]

    def denoise(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        """D = x − σ²∇E (Tweedie's formula)."""
        grad = self.value_and_grad(x, sigma, label)[1]
        return x - per_sample(sigma, x).square() * grad

    def free_energy(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        """The Lyapunov function V = σ² [E − n (d/2) log 2πσ²], (B,), in squared units of x."""
        return self.energy_to_free_energy(self(x, sigma, label), sigma)

    def energy_to_free_energy(self, energy: Tensor, sigma: Sigma) -> Tensor:
        """V from an energy already evaluated at the same point; (B,) to (B,)."""
        sigma = torch.as_tensor(sigma, dtype=energy.dtype, device=energy.device)
        constant = 0.5 * self.densities * self.dim
        return sigma**2 * (energy - constant * torch.log(2 * math.pi * sigma**2))

    def value_and_grads(
        self, x: Tensor, sigma: Sigma, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """E (B,), ∇E (like x) and ∂E/∂log σ at fixed x (B,), nats, in one pass.

        A graph is kept as by :meth:`value_and_grad`.
        """
        create_graph = torch.is_grad_enabled() and (x.requires_grad or self._trains())
        with self._differentiable(x, sigma, label, keep=create_graph) as (x, sigma, label):
            log_sigma = sigma_vector(sigma, x).log().detach().requires_grad_()
            energy = self(x, log_sigma.exp(), label)
            grad, slope = torch.autograd.grad(
                energy.sum(), (x, log_sigma), create_graph=create_graph
            )
        return (energy if create_graph else energy.detach()), grad, slope

    def noise_derivative(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        """∂E/∂log σ at fixed x, (B,), nats. Its mean over noisy data is 0 for a true density."""
        return self.value_and_grads(x, sigma, label)[2]

    def hessian_vector_product(
        self, x: Tensor, sigma: Sigma, vector: Tensor, label: Tensor | None = None
    ) -> Tensor:
        """∇²E(x, σ) · vector, like ``x``."""
        with self._differentiable(x, sigma, label, keep=False) as (x, sigma, label):
            grad = self.value_and_grad(x, sigma, label)[1]
            return torch.autograd.grad(grad, x, _normal_tensor(vector))[0]

    def _trains(self) -> bool:
        return self.training and any(p.requires_grad for p in self.parameters())

    @contextmanager
    def _differentiable(
        self, x: Tensor, sigma: Sigma, label: Tensor | None, *, keep: bool
    ) -> Iterator[tuple[Tensor, Sigma, Tensor | None]]:
        """A scope in which E can be differentiated, whatever mode the caller is in.

        ``enable_grad`` alone does nothing inside ``inference_mode``, and an inference tensor can
        take part in no graph: without this scope a public sampler returns another field, or
        nothing, in silence.
        """
        first = next(self.parameters(), None)
        if first is not None and first.is_inference():
            raise UserError(
                f"{type(self).__name__} was built or moved under torch.inference_mode(), so its"
                " energy cannot be differentiated; build it outside that mode."
            )
        with ExitStack() as scope:
            scope.enter_context(torch.inference_mode(False))
            scope.enter_context(torch.enable_grad())
            if not self.training:
                scope.enter_context(torch.autocast(x.device.type, enabled=False))
                x = at_least_float32(x)
            x, sigma, label = (_normal_tensor(t) for t in (x, sigma, label))
            if not (keep and x.requires_grad):
                x = x.detach().requires_grad_()
            yield x, sigma, label


def sigma_vector(sigma: Sigma, x: Tensor) -> Tensor:
    """σ as a (B,) tensor of x's dtype and device; ``UserError`` where it is not > 0.

    A tensor on an accelerator is not read, see :func:`_readable`. In training σ comes from a
    noise distribution and in sampling from a grid, and both are checked where they are made.
    """
    positive = sigma > 0
    if isinstance(positive, Tensor):
        positive = not _readable(positive) or bool(positive.all())
    if not positive:
        wrong = sigma[~(sigma > 0)][0].item() if isinstance(sigma, Tensor) else sigma
        raise UserError(f"sigma must be positive, got {wrong}: energies exist only for noisy data.")
    return torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(x.shape[0])


def per_sample(values: Sigma, x: Tensor) -> Tensor:
    """A scalar or (B,) quantity shaped (B, 1, …) so that it multiplies samples like ``x``."""
    values = torch.as_tensor(values, dtype=x.dtype, device=x.device)
    return values if values.ndim == 0 else values.view(-1, *[1] * (x.ndim - 1))


def require_samples(model: Denoiser, x: Tensor) -> None:
    """``UserError`` unless x is floating point of shape (B, \\*shape)."""
    if tuple(x.shape[1:]) != tuple(model.shape) or not x.is_floating_point():
        raise UserError(
            f"{type(model).__name__} takes floating point samples (B, *{tuple(model.shape)}), got"
            f" {tuple(x.shape)} {x.dtype}."
        )


def require_labels(model: Denoiser, x: Tensor, label: Tensor | None) -> None:
    """``UserError`` unless the label is ``None`` or (B,) integers from −1 to num_classes − 1.

    Values on an accelerator are not read, see :func:`_readable`: give a copy on the CPU to have
    them checked.
    """
    if label is None:
        return
    if model.num_classes == 0:
        raise UserError("a class label was given, but this model was built with num_classes = 0.")
    if (
        tuple(label.shape) != (len(x),)
        or label.is_floating_point()
        or (_readable(label) and bool(((label < -1) | (label >= model.num_classes)).any()))
    ):
        raise UserError(
            f"label must be {len(x)} integers from -1 (unknown) to {model.num_classes - 1}, got"
            f" {label.tolist()}."
        )


def at_least_float32(x: Tensor) -> Tensor:
    """A half-precision tensor in float32; anything wider as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _readable(value: Tensor) -> bool:
    """Whether reading values is free: elsewhere it would wait for the device at every step."""
    return value.device.type == "cpu" and not torch.compiler.is_compiling()


def _normal_tensor(value: Any) -> Any:
    """A copy of an inference tensor that autograd accepts; anything else as it is."""
    if isinstance(value, Tensor) and value.is_inference():
        return value.clone()
    return value
