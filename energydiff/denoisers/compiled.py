"""Energy and gradient as one compiled function, checked against the eager gradient.

A compiled energy cannot be differentiated twice from outside. Differentiated inside, by
``torch.func.grad_and_value``, it can: the compiler sees E and ∇E as one graph whose ordinary first
backward is the training step.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from energydiff.energies.base import Energy
from energydiff.errors import UserError

# Relative error of ∇E: what reordered float32 and bfloat16 sums may differ by.
TOLERANCE, AUTOCAST_TOLERANCE = 1e-3, 5e-2

# The compiler counts versions per function, and every model of the process shares this one.
VERSIONS = 64


class CompiledGradient:
    """Computes E (B,) and ∇E (like x) of an energy, compiling on first use.

    Holds no weights and nothing compiled survives a copy or a pickle: a copied model compiles
    again when it is first called.

    Args:
        backend: of ``torch.compile``.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self.backend = backend
        self._function: Callable[..., tuple[Tensor, Tensor]] | None = None
        self._checked: set[tuple[bool, ...]] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.backend,)

    def __call__(
        self,
        energy: Energy,
        x: Tensor,
        sigma: Tensor,
        label: Tensor | None,
        eager: Callable[[], tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor]:
        """The compiled answer; ``eager`` gives the one it must equal, when this mode is new."""
        if self._function is None:
            self._function = torch.compile(
                energy_and_gradient, fullgraph=True, backend=self.backend
            )
        try:
            with torch._dynamo.config.patch(recompile_limit=VERSIONS):
                answer = self._function(energy, x, sigma, label)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"the energy could not be compiled ({reason}); build the model with compile=False."
            ) from error
        mode = (energy.training, torch.is_grad_enabled(), label is not None)
        if mode not in self._checked:
            _require_equal(answer, eager(), torch.is_autocast_enabled(x.device.type))
            self._checked.add(mode)
        return answer


def energy_and_gradient(
    energy: Energy, x: Tensor, sigma: Tensor, label: Tensor | None
) -> tuple[Tensor, Tensor]:
    """E (B,) and ∇E (like x), differentiated inside so that a compiler sees both."""

    def total(x: Tensor) -> tuple[Tensor, Tensor]:
        values = energy.forward(x, sigma, label)
        return values.sum(), values

    grad, (_, values) = torch.func.grad_and_value(total, has_aux=True)(x)
    return values, grad


def _require_equal(
    answer: tuple[Tensor, Tensor], eager: tuple[Tensor, Tensor], autocast: bool
) -> None:
    tolerance = AUTOCAST_TOLERANCE if autocast else TOLERANCE
    for name, mine, theirs in zip(("energy", "gradient"), answer, eager, strict=True):
        mine, theirs = mine.detach(), theirs.detach()
        error = float((mine - theirs).norm() / theirs.norm().clamp_min(1e-12))
        if not error <= tolerance:
            raise UserError(
                f"the compiled {name} differs from the eager one by {error:.1e} of its size, more"
                f" than {tolerance:.0e}; build the model with compile=False."
            )
