"""The parser of training commands: its help, and the modules that a configuration names."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from energydiff.cli.parser import Parser
from energydiff.errors import UserError
from energydiff.plain_yaml import read_yaml

# Parts of the help, in order.
HELP = {
    "data": "data",
    "model": "model, noise levels, learning rate, images",
    "ema": "averaged weights",
    "monitor": "what is watched",
    "finish": "what the end of fit does",
}


class TrainingParser(Parser, LightningArgumentParser):
    """Lightning's parser, with the manners of the other commands."""


class TrainerHelp(argparse.Action):
    """``--trainer.help``: the hundreds of lines that the other help leaves out."""

    def __init__(self, option_strings: Sequence[str], **kwargs: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, 0, help=kwargs["help"])

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        assert isinstance(parser, TrainingParser) and parser.groups is not None
        parser._action_groups = [parser.groups["trainer"]]
        parser.print_help()
        parser.exit()


def arrange(parser: LightningArgumentParser) -> None:
    """What people change comes first in the help, and Lightning's part not at all."""
    groups = []
    for name, title in HELP.items():
        if parser.groups and name in parser.groups:
            parser.groups[name].title = title
            groups.append(parser.groups[name])
    (options,) = (group for group in parser._action_groups if group.title == "options")
    parser._action_groups = [*groups, options]


def modules_named_in(file: Path) -> list[str]:
    """The modules that a configuration names."""
    try:
        content = read_yaml(file.read_text(), str(file))
    except OSError:  # the parser says so
        return []
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file} is no configuration: {' '.join(str(error).split())}.") from error
    modules = content.get("import", []) if isinstance(content, dict) else []
    if not (isinstance(modules, list) and all(isinstance(name, str) for name in modules)):
        raise UserError(f"import in {file} must be a list of modules, as in [mynet].")
    return modules
