"""The command ``energydiff``: one file per subcommand, each imported only when it is asked for."""

import importlib
import sys
from collections.abc import Sequence

from energydiff.errors import sentences

# By name: the module that has its ``main``, and what it does.
COMMANDS = {
    "fit": ("training", "train an energy or its baseline; the same command resumes it"),
    "validate": ("training", "held-out loss of a trained run"),
    "test": ("training", "the same, under Lightning's test loop"),
    "sample": ("sample", "draw samples with a record of V and its certificate"),
    "evaluate": ("evaluate", "fid, compare, report: quality of samples, with intervals"),
    "complete": ("complete", "train a masked completion (complete fit), or fill images with one"),
    "export": ("export", "write a trained model as two plain files"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand: 0, or the exit code that its module gives; 2 for a mistake of the user."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given else "--help"
    if name in ("-h", "--help"):
        print(usage())
        return 0
    with sentences():
        if name not in COMMANDS:
            print(f"error: there is no command {name}: see energydiff --help.", file=sys.stderr)
            return 2
        module = importlib.import_module(f"energydiff.cli.{COMMANDS[name][0]}")
        code: int = module.main(given)
        return code


def usage() -> str:
    """One screen."""
    lines = [f"  {name:<10}{what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        ["usage: energydiff COMMAND …", "", *lines, "", "energydiff COMMAND --help says more."]
    )
