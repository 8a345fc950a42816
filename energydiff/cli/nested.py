"""What is wrong with a class that is chosen on the command line, or its options, in a few words."""

import re
from collections.abc import Mapping

from energydiff.registry import known


def nested(message: str, kinds: Mapping[str, object]) -> str | None:
    """jsonargparse's message about a chosen class, by the whole name of the option at fault.

    kinds: the type of every option. ``None`` for any other message.
    """
    place = ".".join(re.findall(r'Parser key "([^"]*)"', message))
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        kind = kinds.get(place)
        own = ", ".join(known(kind)) if isinstance(kind, type) else "one by name"
        return f"{place} is {found[1]}: choose {own}, or a class of your own by its import path"
    classes = re.findall(r"given class_path '([\w.]+)'", message)
    if not classes:
        return None
    name = classes[-1].rpartition(".")[2]
    if found := re.search(r"[Oo]ption '([\w.]+)' is not accepted", message):
        return f"{place}.{found[1]} has no meaning for {name}: leave it out"
    if found := re.search(r"arguments are required: (\w+)", message):
        return f"{name} needs {place}.{found[1]}"
    if found := re.search(r"Expected an? (.*?)\. Got value: (.*)", message):
        return f"{place} expects {found[1]}, got {found[2]}"
    if found := re.search(r"No module named .*", message):
        return f"{place} is {classes[-1]}: {found[0]}"
    return None
