"""Optional packages, asked for when they are needed."""

import importlib
from typing import Any

from energydiff.errors import UserError


def import_extra(module: str, extra: str) -> Any:
    """The module; ``UserError`` naming the ``extra`` that installs it where it is absent."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"the package {module} cannot be imported ({error}): pip install 'energydiff[{extra}]'."
        ) from error
