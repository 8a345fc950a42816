"""YAML of plain values, no more of them than its text has room for.

An alias repeats what it names without a copy, but whatever walks through what was read meets it as
often as it stands there: with aliases of aliases, ten lines are more values than a lifetime reads.
"""

from typing import Any

import yaml

from energydiff.errors import UserError

LARGEST = 100_000  # values, aliases followed; the resolved configuration of a run has some hundred


def read_yaml(text: str, what: str) -> Any:
    """What a YAML text says.

    Args:
        what: the file it is of.

    Raises:
        UserError: it nests too deeply, or as :func:`require_walkable`.
        yaml.YAMLError: it is no YAML, or has tags that ask for Python's objects.
    """
    try:
        require_walkable(text, what)
        return yaml.safe_load(text)
    except RecursionError as error:
        raise UserError(f"{what} nests values too deeply: write them flat.") from error


def require_walkable(text: str, what: str) -> None:
    """``UserError`` where aliases repeat too much or hold themselves.

    A text that is no YAML passes.

    Raises RecursionError where values nest too deeply.
    """
    try:
        if "&" in text and "*" in text and _size(yaml.compose(text, yaml.SafeLoader), {}) > LARGEST:
            raise UserError(
                f"{what} repeats values by YAML aliases, to more than {LARGEST:,} in all or without"
                " end: write out what it needs."
            )
    except yaml.YAMLError:
        pass


def _size(node: yaml.Node | None, known: dict[int, float]) -> float:
    """How many values a node stands for; infinity where it holds itself."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = float("inf")  # until it is known: whoever asks meanwhile is inside it
        inside = [n for pair in node.value for n in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_size(each, known) for each in inside)
    return known[id(node)]
