"""The one exception that front doors turn into a sentence and an exit code."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class UserError(Exception):
    """Something the user gave is wrong; the message names it and says what to do.

    The command prints the message without a traceback and exits with code 2. Library code raises
    it wherever a file, field or value is at fault.
    """

    def __init__(self, message: str) -> None:
        # A worker of a loader hands over no exception but its traceback, and torch makes that the
        # message: the sentence is what follows this name the last time.
        name = f"{type(self).__module__}.{type(self).__qualname__}: "
        super().__init__(message.rpartition(name)[2].rstrip("\n"))


class NoEnergyError(UserError):
    """An energy was asked of a model that has none (the unconstrained baseline)."""


@contextmanager
def sentences() -> Iterator[None]:
    """Around a front door: a ``UserError`` becomes one line on standard error and exit code 2.

    So does a warning about what the user gave, without the place in the code that gives it.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _told(warnings.showwarning)
            yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a path that cannot be read or written names itself
        print(f"error: {error}.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as end:
        said = str(end) or "interrupted: run the same command again to go on."
        print(said, file=sys.stderr)
        sys.exit(130)


def _told(show: Callable[..., None]) -> Callable[..., None]:
    """Prints a ``UserWarning`` as a line on standard error, and leaves others to ``show``."""

    def shown(message: Warning | str, category: type[Warning], *place: Any, **where: Any) -> None:
        if category is UserWarning:
            print(f"warning: {message}", file=sys.stderr)
        else:
            show(message, category, *place, **where)

    return shown
