"""The one exception that front doors turn into a sentence and an exit code."""


class UserError(Exception):
    """Something the user gave is wrong; the message names it and says what to do.

    ``train.py``, ``sample.py`` and the other front doors print the message without a traceback
    and exit with code 2. Library code raises it wherever a file, field or value is at fault.
    """


class NoEnergyError(UserError):
    """An energy was asked of a model that has none (the unconstrained baseline)."""
