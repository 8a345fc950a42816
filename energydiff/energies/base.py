"""What an energy is, and the one gate through which it is differentiated.

An energy is a scalar E(x, σ) = −log p_σ(x) in nats, where p_σ is the data density convolved with
N(0, σ²I). Everything else follows from it:

    score          s = −∇E
    denoiser       D = x − σ²∇E                                (Tweedie: E[x0 | x])
    free energy    V = σ² [E − (d/2) log 2πσ²]  ≥ 0            the Lyapunov function
    its gradient   ∇V = x − D

V is half the soft squared distance to the data: V → ½ dist(x, data)² as σ → 0.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from energydiff.derivatives import (
    differentiable,
    full_precision,
    ordinary,
    value_and_derivatives,
)
from energydiff.energies.noise_range import NoiseRange
from energydiff.errors import NoEnergyError, UserError
from energydiff.registry import Configured, build, describe, find

Sigma = float | Tensor


class Denoiser(Configured, nn.Module, ABC):
    """A posterior mean D(x, σ) = E[x0 | x0 + σε = x] over samples of one shape.

    Attributes:
        shape: shape of one sample, ``(C, H, W)`` or ``(d,)``.
        num_classes: number of class labels; 0 if the model takes none.
        noise: the noise levels it is made for; ``None`` for a closed form, which knows them all.
        exact: it is the denoiser of some data density, E = −log p_σ, so the theorems on the
            Lyapunov function hold for it and a certificate may say ``proved``.
        convex_denoiser: D is the gradient of a convex function by construction, so that the theorem
            on the descent part holds.
        rising_free_energy: ∂V/∂σ ≥ 0 by construction, so that the one on the landscape part does.
        noise_blind: σ is only a temperature, E = H(x)/σ², and there is no noise to go down.
    """

    shape: tuple[int, ...]
    num_classes: int = 0
    noise: NoiseRange | None = None
    exact: bool = False
    convex_denoiser: bool = False
    rising_free_energy: bool = False
    noise_blind: bool = False

    @abstractmethod
    def denoise(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        """Posterior mean, like ``x`` (B, \\*shape).

        ``sigma`` is a positive noise level, scalar or (B,). ``label`` is (B,) integers, −1 where
        the class is unknown; ``None`` means unknown for all.
        """

    def check(self, x: Tensor, label: Tensor | None = None) -> None:
        """``UserError`` unless x is (B, \\*shape) and the label fits, or is ``None``."""
        require_samples(self, x)
        require_labels(self, x, label)

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

    def require_noise(self) -> NoiseRange:
        """The noise range, or ``UserError`` for a model that was given none."""
        if self.noise is None:
            raise UserError(
                f"this {type(self).__name__} carries no noise range: set model.noise ="
                " NoiseRange(sigma_min, sigma_max), or give the noise levels."
            )
        return self.noise

    def describe(self) -> dict[str, Any]:
        """The model as plain data, from which :meth:`build` makes it again with its tensors.

        Its class and the arguments of its constructor, but for tensors that are kept as buffers or
        parameters of the same names.

        Raises:
            UserError: the class or an argument could not be found again.
        """
        return describe(self, _stored_arguments(self))

    @classmethod
    def build(cls, arguments: Mapping[str, Any], state: Mapping[str, Tensor], what: str) -> Self:
        """The inverse of :meth:`describe`.

        Args:
            arguments: the description without its class.
            state: of the model's ``state_dict``; whoever builds the model loads it afterwards.
            what: what it is and who asks for it, as in "the model in runs/a".
        """
        kept = {name: state[name] for name in inspect.signature(cls).parameters if name in state}
        given = {name: _built(value, state, what) for name, value in arguments.items()}
        return cls(**given, **kept)


class Energy(Denoiser):
    """A scalar energy E(x, σ) in nats. A subclass writes only ``forward``.

    A subclass may also override ``gradient`` and ``gradients`` with derivatives written out, which
    must equal autograd's.

    Attributes:
        densities: n, how many noised densities E multiplies: 1 unless composed. V takes the
            noise's constant out of E that many times, so the V of a sum is the sum of the V's.
    """

    densities: float = 1.0

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """E(x, σ) in nats, (B,), of checked arguments: ``sigma`` is (B,), like ``x`` else."""

    def __call__(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        """:meth:`forward`, in full float32 or wider unless training.

        Energies, traces and line searches need it: a bfloat16 value is off by half a nat where a
        step changes E by two, one of TF32 by a tenth.
        """
        self.check(x, label)
        if self.training:
            return super().__call__(x, sigma_vector(sigma, x), label)
        with full_precision(x.device):
            x = at_least_float32(x)
            return super().__call__(x, sigma_vector(sigma, x), label)

    @property
    def energy(self) -> "Energy":
        return self

    @property
    def normalised(self) -> bool:
        """E is −log p_σ with its constant, known or learned: likelihoods can be read from it."""
        return self.exact

    # The arithmetic of compositions, which build on this class and so are imported late.

    def __add__(self, other: "Energy") -> "Energy":
        return self._combined(other, 1.0)

    def __sub__(self, other: "Energy") -> "Energy":
        return self._combined(other, -1.0)

    def _combined(self, other: "Energy", weight: float) -> "Energy":
        from energydiff.energies.composition import Sum

        return Sum([self, other], [1.0, weight]) if isinstance(other, Energy) else NotImplemented

    def __neg__(self) -> "Energy":
        from energydiff.energies.composition import Negation

        return Negation(self)

    def __mul__(self, weight: float) -> "Energy":
        from energydiff.energies.composition import Sum

        return Sum([self], [weight]) if isinstance(weight, int | float) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, temperature: float) -> "Energy":
        from energydiff.energies.composition import Temperature

        if not isinstance(temperature, int | float):
            return NotImplemented
        return Temperature(self, temperature)

    def value_and_grad(
        self, x: Tensor, sigma: Sigma, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """E (B,) and ∇E (like x) in one pass.

        The result is the same under ``fit``, ``validate``, ``test``, ``predict``, ``no_grad`` and
        ``inference_mode``. A graph through ∇E is kept only where somebody can want it: gradients
        are enabled, and either the model is training or ``x`` itself requires a gradient.
        """
        with self._gate(x, sigma, label) as (x, sigma, label):
            return self.gradient(x, sigma, label)

    def value_and_grads(
        self, x: Tensor, sigma: Sigma, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """E (B,), ∇E (like x) and ∂E/∂log σ at fixed x (B,), nats, in one pass.

        A graph is kept as by :meth:`value_and_grad`.
        """
        with self._gate(x, sigma, label) as (x, sigma, label):
            return self.gradients(x, sigma, label)

    def gradient(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """E and ∇E behind the gate: of checked arguments, and with a graph where gradients are
        enabled."""
        energy, grad = value_and_derivatives(lambda x: self.forward(x, sigma, label), x)
        return energy, grad

    def grad(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """∇E behind the gate, as :meth:`gradient`, for whoever does not ask for E."""
        return self.gradient(x, sigma, label)[1]

    def gradients(
        self, x: Tensor, sigma: Tensor, label: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """E, ∇E and ∂E/∂log σ behind the gate, as :meth:`gradient`."""
        energy, grad, slope = value_and_derivatives(
            lambda x, log_sigma: self.forward(x, log_sigma.exp(), label), x, sigma.log().detach()
        )
        return energy, grad, slope

    def score(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        """∇ log p_σ(x) = −∇E, like ``x``."""
        with self._gate(x, sigma, label) as arguments:
            grad = self.grad(*arguments)
        return -grad

    def denoise(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        """D = x − σ²∇E (Tweedie's formula)."""
        with self._gate(x, sigma, label) as arguments:
            grad = self.grad(*arguments)
        return x - per_sample(sigma, x).square() * grad

    def noise_derivative(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        """∂E/∂log σ at fixed x, (B,), nats. Its mean over noisy data is 0 for a true density."""
        return self.value_and_grads(x, sigma, label)[2]

    def free_energy(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        """The Lyapunov function V = σ² [E − n (d/2) log 2πσ²], (B,), in squared units of x."""
        return self.energy_to_free_energy(self(x, sigma, label), sigma)

    def energy_to_free_energy(self, energy: Tensor, sigma: Sigma) -> Tensor:
        """V from an energy already evaluated at the same point; (B,) to (B,)."""
        sigma = like(sigma, energy)
        constant = 0.5 * self.densities * self.dim
        return sigma**2 * (energy - constant * torch.log(2 * math.pi * sigma**2))

    def free_energy_slope(self, x: Tensor, sigma: Sigma, label: Tensor | None = None) -> Tensor:
        """∂V/∂σ = (2V + σ²(∂E/∂log σ − n d))/σ at fixed x, (B,), units of x; ≥ 0 if ``exact``."""
        energy, _, slope = self.value_and_grads(x, sigma, label)
        sigma = like(ordinary(sigma), energy)
        free_energy = self.energy_to_free_energy(energy, sigma)
        return 2 * free_energy / sigma + sigma * (slope - self.densities * self.dim)

    def third_derivative_bound(self, sigma: Tensor) -> Tensor | None:
        """A Lipschitz constant of ∇²V at each σ (B,), 1 / units of x, where there is a theorem."""
        return None

    def hessian_vector_product(
        self, x: Tensor, sigma: Sigma, vector: Tensor, label: Tensor | None = None
    ) -> Tensor:
        """∇²E(x, σ) · vector, like ``x``."""
        with self._gate(x, sigma, label) as (x, sigma, label), torch.enable_grad():
            x = x.detach().requires_grad_()
            grad = self.gradient(x, sigma, label)[1]
            return torch.autograd.grad(grad, x, ordinary(vector))[0]

    @contextmanager
    def _gate(
        self, x: Tensor, sigma: Sigma, label: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """The one place where arguments are checked, modes left and the graph decided on.

        Inside, gradients are enabled where a graph is to be kept, and x requires one where the
        caller's does and gets it.
        """
        self.check(x, label)
        first = next(self.parameters(), None)
        if first is not None and first.is_inference():
            raise UserError(
                f"{type(self).__name__} was built or moved under torch.inference_mode(), so its"
                " energy cannot be differentiated; build it outside that mode."
            )
        trains = self.training and any(p.requires_grad for p in self.parameters())
        keep = torch.is_grad_enabled() and (x.requires_grad or trains)
        with differentiable(x.device, graph=keep, autocast=self.training):
            x, sigma, label = ordinary(x), ordinary(sigma), ordinary(label)
            x = x if keep else x.detach()
            x = x if self.training else at_least_float32(x)
            yield x, sigma_vector(sigma, x), label


def build_model(description: Mapping[str, Any], state: Mapping[str, Tensor], what: str) -> Denoiser:
    """The inverse of :meth:`Denoiser.describe`, ``state`` and ``what`` as of its ``build``."""
    arguments = dict(description)
    return find(Denoiser, arguments.pop("class", ""), what).build(arguments, state, what)


def _stored_arguments(model: Denoiser) -> dict[str, Any]:
    """Constructor arguments but for tensors kept under the same name; see ``describe``."""
    stored, kept = {}, model.state_dict().keys()
    for name, value in model.config.items():
        if name in kept:
            continue
        if isinstance(value, Tensor):  # it may be kept as plain numbers
            value = getattr(model, name, value)
        stored[name] = _stored(value, model, f"{type(model).__name__}.{name}")
    return stored


def _stored(value: Any, model: Denoiser, place: str) -> Any:
    """Models inside an argument by their descriptions and where in the state their tensors are."""
    if isinstance(value, list | tuple):
        return [_stored(item, model, place) for item in value]
    if isinstance(value, Tensor):
        raise UserError(f"{place} is a tensor: keep it as a buffer of that name to save it.")
    if not isinstance(value, Denoiser):
        return value
    prefix = next((name for name, module in model.named_modules() if module is value), None)
    if prefix is None:
        raise UserError(f"{place} is a model that {type(model).__name__} keeps in no attribute.")
    return value.describe() | {"state": prefix}


def _built(value: Any, state: Mapping[str, Tensor], what: str) -> Any:
    """A description inside an argument as the object that it describes."""
    if isinstance(value, list):
        return [_built(item, state, what) for item in value]
    if not (isinstance(value, Mapping) and "class" in value):
        return value
    if "state" not in value:
        return build(Configured, value, what)
    prefix = f"{value['state']}."
    description = {name: item for name, item in value.items() if name != "state"}
    own = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    return build_model(description, own, what)


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
    return like(sigma, x).expand(x.shape[0])


def like(value: Sigma, x: Tensor) -> Tensor:
    """A number or a tensor, of x's dtype and device.

    A number is filled in there: a copy from the host would make it wait for the device.
    """
    if isinstance(value, Tensor):
        return value.to(x)
    return torch.full((), value, dtype=x.dtype, device=x.device)


def per_sample(values: Sigma, x: Tensor) -> Tensor:
    """A scalar or (B,) quantity shaped (B, 1, …) so that it multiplies samples like ``x``."""
    values = like(values, x)
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
    """Whether reading values is free: elsewhere it would wait for the device at every step.

    Of another class than PyTorch's own, as a fake tensor, there may be none to read.
    """
    plain = value.device.type == "cpu" and type(value) is Tensor
    return plain and not torch.compiler.is_compiling()
