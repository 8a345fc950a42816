"""A sampler from its name and options, as command lines and files give them.

The name is a sampler's own (``heun``), ``guarded_`` and the name of a deterministic one, or the
import path of a class of one's own. Options are the keywords of its constructor.
"""

import inspect
from collections.abc import Sequence
from inspect import Parameter
from typing import Any

from torch import Tensor

from energydiff import registry
from energydiff.errors import UserError
from energydiff.sampling.gradient_descent import GradientDescent
from energydiff.sampling.guard import Guarded
from energydiff.sampling.sampler import Sampler

GUARDED = "guarded_"


def sampler_class(name: str) -> type[Sampler]:
    """The class that a name stands for; of ``guarded_heun`` that is the one guarded.

    Raises:
        UserError: there is no such sampler.
    """
    plain = name.removeprefix(GUARDED)
    ours = registry.known(Sampler).values()  # type: ignore[type-abstract]
    named = {cls.name: cls for cls in ours if cls is not Guarded}
    if plain in named:
        return named[plain]
    if "." not in plain:
        raise UserError(
            f"the sampler is {name!r}, which this package does not have: choose"
            f" {', '.join(sorted(named))}, {GUARDED} before one that draws no noise, or a class of"
            " your own by its import path."
        )
    kind = registry.find(Sampler, plain, "the sampler")  # type: ignore[type-abstract]
    if missing := ", ".join(sorted(kind.__abstractmethods__)):
        raise UserError(f"the sampler {name} is not complete: it has to define {missing}.")
    return kind


def make_sampler(
    name: str,
    sigmas: float | Sequence[float] | Tensor | None,
    /,
    *,
    final_denoise: bool = True,
    **options: Any,
) -> Sampler:
    """The sampler of a name.

    Args:
        name: see :func:`sampler_class`.
        sigmas: its noise grid, falling; ``None`` for a descent, which knows none.
        final_denoise: end with x ← D(x, σ_min); not of a descent.
        options: of its constructor, and ``c`` and ``total`` of a guard.

    Raises:
        UserError: no such sampler, an option that it does not take or that is of another type, or a
            noise grid where there can be none.
    """
    kind, guarded = sampler_class(name), name.startswith(GUARDED)
    descent = issubclass(kind, GradientDescent)
    if descent != (sigmas is None):
        wrong = "knows no noise levels" if descent else "needs sigmas, noise levels to go down"
        raise UserError(f"{name} {wrong}.")
    grid = () if descent else (sigmas, final_denoise)
    guards = _options(Guarded) if guarded else {}
    takes = _options(kind) | guards
    _check_types(name, takes, options)
    of_guard = {option: options.pop(option) for option in guards if option in options}
    try:
        inspect.signature(kind).bind(*grid, **options)
    except TypeError as error:
        known = ", ".join(takes) or "none"
        raise UserError(f"sampler {name}: {error}; its options are {known}.") from None
    sampler = kind(*grid, **options)
    return Guarded(sampler, **of_guard) if guarded else sampler


def _options(kind: type[Sampler]) -> dict[str, Parameter]:
    """What is optional about a sampler: its constructor's parameters but for what it goes along."""
    given = ("sigmas", "final_denoise", "sampler")
    various = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    parameters = inspect.signature(kind).parameters.items()
    return {n: p for n, p in parameters if n not in given and p.kind not in various}


def _check_types(name: str, takes: dict[str, Parameter], options: dict[str, Any]) -> None:
    """``UserError`` where a number is asked for and something else given."""
    for option, value in options.items():
        wanted = takes[option].annotation if option in takes else None
        fits = (int, float) if wanted is float else (wanted,)
        if wanted in (bool, int, float) and type(value) not in fits:
            raise UserError(f"{option} of {name} must be {wanted.__name__}, got {value!r}.")
