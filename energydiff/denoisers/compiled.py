"""Methods of a model as compiled functions, each checked against the eager one.

A compiled energy cannot be differentiated twice from outside. Differentiated inside, by
``torch.func``, it can: the compiler sees E and its derivatives as one graph whose ordinary first
backward is the training step (:func:`energydiff.derivatives.value_and_derivatives`).
"""

from collections.abc import Callable, Iterable
from functools import cache, partial, wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from energydiff.errors import UserError

# Relative errors: what reordered sums may differ by in float32, of which a GPU may keep ten bits
# in training, and in bfloat16.
TOLERANCE, AUTOCAST_TOLERANCE = 5e-3, 5e-2

# The compiler counts versions per method, and all models of the process share it.
VERSIONS = 64

Method = TypeVar("Method", bound=Callable[..., Any])


def compilable(method: Method) -> Method:
    """Decorates a method of (x, σ, label): it runs as one compiled function where the model's
    ``compiler`` names a backend of ``torch.compile``.

    Each version that the compiler makes, as for another mode, precision or shape, is checked
    against the method itself when it is new: its answer and, where there is a graph, the gradient
    of its parameters. Nothing compiled belongs to a model: its weights, copies and files are those
    of any other.

    An x that requires a gradient is left to the method, whose graph alone can be differentiated
    more than once.

    Raises:
        UserError: the method could not be compiled, or its answer or gradient differs.
    """

    @cache
    def compiled(backend: Any) -> Callable[..., Any]:
        return torch.compile(method, fullgraph=True, backend=backend)

    @wraps(method)
    def wrapper(self: Any, x: Tensor, sigma: Tensor, label: Tensor | None) -> Any:
        eager = partial(method, self, x, sigma, label)
        if self.compiler is None or x.requires_grad or torch.compiler.is_compiling():
            return eager()
        # The compiler takes seconds to import.
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
        from torch._dynamo.utils import counters

        fast = partial(compiled(self.compiler), self, x, sigma, label)
        versions = counters["stats"]["unique_graphs"]
        try:
            # DDP's own optimizer cuts graphs where its buckets end, and cannot cut torch.func's.
            with torch._dynamo.config.patch(recompile_limit=VERSIONS, optimize_ddp=False):
                answer = fast()
                if counters["stats"]["unique_graphs"] > versions:
                    autocast = torch.is_autocast_enabled(x.device.type)
                    tolerance = AUTOCAST_TOLERANCE if autocast else TOLERANCE
                    _require_equal(method.__name__, fast, eager, self.parameters(), tolerance)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            raise UserError(
                f"the {method.__name__} of {type(self).__name__} could not be compiled"
                f" ({_cause(error)}); build the model with compile=False."
            ) from error
        return answer

    return cast(Method, wrapper)


def _require_equal(
    name: str,
    fast: Callable[[], Any],
    eager: Callable[[], Any],
    parameters: Iterable[Tensor],
    tolerance: float,
) -> None:
    """The answers and their gradient in all parameters together, along the answers themselves."""
    found, expected = tree_leaves(fast()), tree_leaves(eager())
    pairs = [(f"compiled {name}", *pair) for pair in zip(found, expected, strict=True)]
    if expected[0].requires_grad:
        learned = [p for p in parameters if p.requires_grad]
        along = [answer.detach() / answer.detach().norm().clamp_min(1e-12) for answer in expected]

        def gradient(answers: list[Tensor]) -> Tensor:
            parts = torch.autograd.grad(
                answers, learned, along, allow_unused=True, materialize_grads=True
            )
            return torch.cat([part.flatten() for part in parts])

        what = f"training gradient of the compiled {name}"
        pairs.append((what, gradient(found), gradient(expected)))
    for what, mine, theirs in pairs:
        mine, theirs = mine.detach(), theirs.detach()
        error = float((mine - theirs).norm() / theirs.norm().clamp_min(1e-12))
        if not error <= tolerance:
            raise UserError(
                f"the {what} differs from the eager one by {error:.1e} of its size, more than"
                f" {tolerance:.0e}; build the model with compile=False."
            )


def _cause(error: BaseException) -> str:
    """What a compiler's error is about, in a line."""
    while isinstance(inner := getattr(error, "inner_exception", None), BaseException):
        error = inner
    first = str(error).strip().partition("\n")[0]
    of_compiler = type(error).__module__.startswith("torch._dynamo")
    return first if of_compiler else f"{type(error).__name__}: {first}"
