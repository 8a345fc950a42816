"""Classes by name, in files and on command lines, and objects that say how they were made.

A class of this package goes by its plain name, any other by its import path, as in ``mynet.MyNet``.
Naming a class never imports its module: a foreign class is found only where the user has imported
it, in Python or by ``--import``. What exists needs no table: Python knows every subclass.
"""

import functools
import importlib
import inspect
import sys
from abc import ABC
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from energydiff.errors import UserError

PACKAGE = __name__.partition(".")[0]
T = TypeVar("T")


class Configured:
    """Keeps the arguments of its constructor, so that it can be described and built again.

    Attributes:
        config: the constructor's arguments, defaults filled in.
    """

    config: dict[str, Any] = {}  # noqa: RUF012  (of a class without a constructor; never changed)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" not in vars(cls):
            return
        init = cls.__init__
        signature = inspect.signature(init)

        @functools.wraps(init)
        def recording_init(self: Configured, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **kwargs)
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            self.config = dict(list(bound.arguments.items())[1:])

        cls.__init__ = recording_init  # type: ignore[assignment,method-assign]


def known(kind: type[T]) -> dict[str, type[T]]:
    """This package's own classes of a kind by their plain names, those that can be built."""
    found: dict[str, type[T]] = {}
    pending = [kind]
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        if is_ours(cls) and not inspect.isabstract(cls) and ABC not in cls.__bases__:
            found[cls.__name__] = cls
    return dict(sorted(found.items()))


def class_name(cls: type) -> str:
    """What a file calls a class: its plain name here, the shortest import path elsewhere.

    Raises:
        UserError: nobody could import it, as a class made inside a function or in a notebook.
    """
    if is_ours(cls):
        return cls.__name__
    parts = cls.__module__.split(".")
    for length in range(1, len(parts) + 1):
        module = ".".join(parts[:length])
        if module != "__main__" and _attribute(module, cls.__name__) is cls:
            return f"{module}.{cls.__name__}"
    raise UserError(
        f"{cls.__qualname__} of {cls.__module__} could not be found again by an import: write the"
        " class at the top of a module of its own."
    )


def find(kind: type[T], name: str, what: str) -> type[T]:
    """The class of a kind that ``name`` stands for; see :func:`class_name`.

    Args:
        what: what it is and who asks for it, as in "the backbone in runs/a".

    Raises:
        UserError: there is no such class, or its module has not been imported.
    """
    own = known(kind)
    if name in own:
        return own[name]
    module, _, attribute = str(name).rpartition(".")
    if not module:
        raise UserError(
            f"{what} is {name!r}, which this package does not have: choose {', '.join(own)}, or"
            " name a class of your own by its import path."
        )
    if module not in sys.modules and module.partition(".")[0] != PACKAGE:
        raise UserError(
            f"{what} is {name}, and the module {module} has not been imported, for loading a file"
            f" never runs code on its own: import it first, or add --import {module}."
        )
    cls = _attribute(module, attribute)
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        raise UserError(f"{what} is {name}, which is no {kind.__name__} that can be imported.")
    return cls


def import_modules(names: Iterable[str]) -> None:
    """Import modules that the user names: by import path, or as the path of a ``.py`` file.

    The working folder is searched too.

    Raises:
        UserError: a module cannot be imported.
    """
    for name in names:
        file = Path(name)
        folder = file.parent if file.suffix == ".py" else Path()
        if str(folder.resolve()) not in sys.path:
            sys.path.append(str(folder.resolve()))
        try:
            importlib.import_module(file.stem if file.suffix == ".py" else name)
        except ImportError as error:
            raise UserError(f"--import {name}: {error}.") from error


def describe(thing: Configured, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An object as plain data: its class and its constructor's arguments.

    Args:
        arguments: those to keep, where it is not all of them.

    Raises:
        UserError: an argument is no plain data, so that no file could hold it.
    """
    name = class_name(type(thing))
    arguments = thing.config if arguments is None else arguments
    return {"class": name} | {k: _plain(v, f"{name}.{k}") for k, v in arguments.items()}


def with_defaults(kind: type[Any], description: Mapping[str, Any], what: str) -> dict[str, Any]:
    """A description with the arguments that its class has come to take since, at their defaults;
    ``what`` as of :func:`find`."""
    parameters = inspect.signature(find(kind, description.get("class", ""), what)).parameters
    defaults = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
    return {n: _plain(value, f"{what}.{n}") for n, value in defaults.items()} | dict(description)


def build(kind: type[T], description: Mapping[str, Any], what: str) -> T:
    """The inverse of :func:`describe`; ``what`` as of :func:`find`."""
    arguments = {name: _built(value, what) for name, value in description.items()}
    return find(kind, arguments.pop("class", ""), what)(**arguments)


def build_recorded(kind: type[T], recorded: Any, what: str) -> T:
    """An object as the command line recorded it: ``{class_path: …, init_args: {…}}``, nested.

    An argument is built, or made a path or a tuple again, as the constructor's annotations say:
    nothing but the kinds of things that it asks for can come of a file.

    Args:
        what: as of :func:`find`.

    Raises:
        UserError: a class is of another kind or its module has not been imported, or it no longer
            takes these arguments.
    """
    if not isinstance(recorded, Mapping) or "class_path" not in recorded:
        raise UserError(f"{what} is {recorded!r}: a class_path and its init_args are needed.")
    cls = find(kind, recorded["class_path"], what)
    try:
        hints = get_type_hints(cls.__init__)
    except NameError:  # annotated with what only a type checker imports
        hints = {}
    given = dict(recorded.get("init_args") or {})
    arguments = {n: _annotated(v, hints.get(n), f"{n} of {what}") for n, v in given.items()}
    try:
        inspect.signature(cls).bind(**arguments)
    except TypeError as error:
        raise UserError(f"{what} is {recorded['class_path']}: {error}.") from error
    return cls(**arguments)


def _annotated(value: Any, hint: Any, what: str) -> Any:
    """A recorded value as an argument with this annotation."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    hints = [get_origin(part) or part for part in parts]
    if isinstance(value, Mapping) and "class_path" in value:
        kind = next((part for part in hints if isinstance(part, type)), None)
        if kind in (None, object):
            raise UserError(f"{what} has no annotation, so no file can say what it is.")
        return build_recorded(kind, value, what)
    if isinstance(value, str) and Path in hints:
        return Path(value)
    if isinstance(value, list) and tuple in hints:
        return tuple(value)
    return value


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, Configured):
        return describe(value)
    if isinstance(value, type):
        return class_name(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item, place) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item, place) for name, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(
        f"{place} is a {type(value).__name__}, which no file can hold: let the constructor take"
        " numbers, strings, lists and dictionaries only."
    )


def _built(value: Any, what: str) -> Any:
    """A description inside an argument as the object that it describes."""
    if isinstance(value, list):
        return [_built(item, what) for item in value]
    if isinstance(value, Mapping) and "class" in value:
        return build(Configured, value, what)
    return value


def is_ours(cls: type) -> bool:
    """Whether a class is one of this package."""
    return cls.__module__.partition(".")[0] == PACKAGE


def _attribute(module: str, name: str) -> Any:
    """The attribute of an imported module, of this package's modules in any case; or ``None``."""
    if module not in sys.modules and module.partition(".")[0] == PACKAGE:
        try:
            importlib.import_module(module)
        except ImportError:
            return None
    return getattr(sys.modules.get(module), name, None)
