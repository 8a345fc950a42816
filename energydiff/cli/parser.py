"""How subcommands read a command line: modules first, short help, mistakes in a sentence."""

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, get_loader, set_loader

from energydiff.cli.choice import did_you_mean
from energydiff.cli.nested import nested
from energydiff.errors import UserError
from energydiff.plain_yaml import require_walkable
from energydiff.registry import import_modules

CONFIGS = Path(__file__).parents[1] / "configs"  # in an installed package


_load_yaml = get_loader("yaml")


def _load_walkable(text: str) -> Any:
    """What jsonargparse reads of every file and value, unless it could not be walked through."""
    try:
        require_walkable(text, "what is given as a file or value")
        return _load_yaml(text)
    except RecursionError as error:
        raise UserError("a file or value that is given nests too deeply.") from error


set_loader("yaml", _load_walkable, (yaml.YAMLError,))


class HelpFormatter(DefaultHelpFormatter):
    """A line or two for each option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"max_help_position": 30})

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return "…"

    def _expand_help(self, action: argparse.Action) -> str:
        # What a default of null means, the text says.
        text = re.sub(
            r"(, )?default: (null|==SUPPRESS==)", "", _plain(super()._expand_help(action))
        )
        text = re.sub(r", known subclasses: torch\.nn\.[^)]*", "", text)  # any module: hundreds
        return text.removesuffix(" ()")

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        text = super()._format_args(action, default_metavar)
        return "…" if text.startswith(("{", "[")) and action.option_strings else text


class Parser(ArgumentParser):
    """The parser of one subcommand.

    Reads ``--import`` before all else, and a path ``configs/….yaml`` that the working folder does
    not have from the installed package. A mistake raises ``UserError``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": HelpFormatter} | kwargs)

    def parse_args(self, args: Sequence[str], *others: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        import_modules(values(args, "--import"))
        return super().parse_args([shipped(argument) for argument in args], *others, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # jsonargparse tries one type after another by such parsers
            super().error(message, ex)
        raise UserError(self._sentence(message)) from None

    def _sentence(self, message: str) -> str:
        help_hint = f"see {self.prog} --help"
        unknown = re.match(r"unrecognized arguments: ([^\s=]+)", message)
        if unknown:
            kind = "option" if unknown[1].startswith("-") else "argument"
            guess = did_you_mean(unknown[1], self._option_string_actions)
            return f"{self.prog} takes no {kind} {unknown[1]}{guess}; {help_hint}."
        kinds = {action.dest: getattr(action, "_typehint", None) for action in self._actions}
        about_class = nested(_plain(message), kinds)
        if about_class is not None:
            return f"{about_class}{self._nearest(message)}; {help_hint}."
        lines = [line.strip(" -") for line in message.splitlines()]
        # Wherever an object is expected, the path of a file with it would do too.
        told = [line for line in lines if line and not line.startswith("Expected a path but")]
        text = re.sub(r'^Parser key "([^"]*)":', r"--\1:", _plain(" ".join(told)))
        text = re.sub(r"Expected an? (.*?)\. Got value:", r"expected \1, got", text)
        return f"{text.rstrip('.')}{self._nearest(text)}; {help_hint}."

    def _nearest(self, text: str) -> str:
        """For an option that a class or a part of the configuration does not have."""
        unknown = re.search(r"[Oo]ption '(\w+)'", text)
        if unknown is None:
            return ""
        path = re.search(r"class_path '([\w.]+)\.(\w+)'", text)
        if path:
            return did_you_mean(unknown[1], _parameters(*path.groups()))
        return did_you_mean(unknown[1], (o.rpartition(".")[2] for o in self._option_string_actions))


def function_parser(
    function: Callable[..., Any], prog: str, skip: Iterable[str] = (), usage: str = ""
) -> Parser:
    """A parser of a function's arguments, the required ones by position, and of ``--import``.

    Args:
        usage: what is given by position.
    """
    summary = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:")[0]
    parser = Parser(prog=prog, usage=f"{prog} {usage} [--NAME VALUE …]", description=summary)
    parser.add_function_arguments(
        function,
        as_group=False,
        as_positional=True,
        skip={*skip},
        fail_untyped=True,
        sub_configs=True,  # --data FILE
    )
    parser.add_argument(
        "--import", action=Imported, dest=argparse.SUPPRESS, default=argparse.SUPPRESS
    )
    return parser


class Imported(argparse.Action):
    """``--import``: its work is done before anything else is parsed, here it is only let through.

    Whatever its ``dest``, the command line leaves no value there.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, default: Any) -> None:
        told = "Import a module of one's own first, by import path or .py file; repeatable."
        super().__init__(option_strings, dest, default=default, metavar="MODULE", help=told)

    def __call__(self, *_: Any, **__: Any) -> None:
        pass


def values(arguments: Sequence[str], *options: str) -> Iterator[str]:
    """What is given for an option on a command line that is not parsed yet, in order."""
    for i, option in enumerate(arguments):
        name, equals, value = option.partition("=")
        if name in options and equals:
            yield value
        elif name in options:
            yield from arguments[i + 1 : i + 2]


def shipped(argument: str) -> str:
    """An argument, with a path ``configs/….yaml`` that is not here taken from the package."""
    option, equals, file = argument.rpartition("=")
    ours = CONFIGS.parent / file
    if re.match(r"configs/.*\.yaml$", file) and not Path(file).exists() and ours.is_file():
        return f"{option}{equals}{ours}"
    return argument


def _parameters(module: str, cls: str) -> list[str]:
    return list(inspect.signature(getattr(sys.modules[module], cls)).parameters)


def _plain(text: str) -> str:
    """Types as a reader would say them."""
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    choices = r"(?:typing\.)?(?:Optional\[)?(?:typing\.)?Literal\[([^\]]*)\]\]?"
    return re.sub(choices, lambda found: "one of " + found[1].replace("'", ""), text)
