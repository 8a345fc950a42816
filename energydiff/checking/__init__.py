"""Is the field that a model follows the gradient of its energy, whichever way it is computed?"""

from energydiff.checking.check import Checked, check

__all__ = ["Checked", "check"]
