"""One word out of several, as the command line asks for it."""

import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from energydiff.errors import UserError


def choose(prog: str, commands: Mapping[str, str], given: str) -> str:
    """The command that was given; all of them, a line each, and exit code 0 for ``--help``.

    Raises:
        UserError: there is no such command.
    """
    if given in ("", "-h", "--help"):
        lines = [f"  {name:<10}{what}" for name, what in commands.items()]
        print(f"usage: {prog} COMMAND …", "", *lines, "", sep="\n")
        print(f"{prog} COMMAND --help says more.")
        sys.exit(0)
    if given not in commands:
        raise UserError(
            f"{prog} has no command {given}{did_you_mean(given, commands)}; see {prog} --help."
        )
    return given


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question about the nearest name in parentheses, or nothing."""
    near = get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""
