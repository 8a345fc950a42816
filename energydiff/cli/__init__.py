"""The command ``energydiff``: one file per subcommand, each imported only when it is asked for."""

import importlib
import sys
from collections.abc import Sequence

from energydiff._version import __version__
from energydiff.cli.choice import choose
from energydiff.errors import sentences

# By name: the module that has its ``main``, and what it does.
COMMANDS = {
    "fit": ("training", "train an energy or its baseline; the same command resumes it"),
    "validate": ("training", "held-out loss of a trained run"),
    "test": ("training", "the same, under Lightning's test loop"),
    "distil": ("distil", "train an energy on what a trained denoiser says, then on data"),
    "sample": ("sample", "draw samples with a record of V and its certificate"),
    "evaluate": ("evaluate", "fid, compare, report: quality of samples, with intervals"),
    "memorisation": (
        "memorisation",
        "train on ever more images: what is memorised, spurious, generalised",
    ),
    "landscape": ("landscape", "minima, saddles, basins and bifurcations of an energy"),
    "check": ("check", "is the field the gradient of the energy, in every way it is computed?"),
    "complete": ("complete", "train a masked completion (complete fit), or fill images with one"),
    "replay": ("replay", "take a step that was not finite again, and show where it begins"),
    "encode": ("encode", "write what an encoder makes of images, as latents to train on"),
    "export": ("export", "write a trained model as two plain files"),
    "shards": ("shards", "convert a folder of images to tar files, resized once for good"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand: 0, or the exit code that its module gives; 2 for a mistake of the user."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        print(__version__)
        return 0
    with sentences():
        told = {name: what for name, (_, what) in COMMANDS.items()}
        name = choose("energydiff", told, "".join(given[:1]))
        module = importlib.import_module(f"energydiff.cli.{COMMANDS[name][0]}")
        code: int = module.main(given)
        return code
