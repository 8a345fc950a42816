"""What a run is told about its data: one record of options per source, next to the source."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from energydiff.data.source import Splits


@dataclass(frozen=True, kw_only=True)
class DataSpec(ABC):
    """A source of data by its options; nothing is read before :meth:`open`.

    A subclass is a frozen dataclass too. Its fields are the source's options, in a configuration
    (``data.source``), on the command line (``--data.source.…``) and in Python.

    Args:
        labels: whether samples come with their class; without, every label is -1.

    Attributes:
        labelled: whether labels are there wherever the data are.
    """

    labelled: ClassVar[bool] = False

    labels: bool = False

    @abstractmethod
    def open(self) -> Splits:
        """The training and the held-out part.

        Raises:
            UserError: whatever is wrong with an option or the data, in one sentence.
        """

    def describe(self) -> str:
        """In words: what is recorded beside a measurement."""
        name, root = type(self).__name__.lower(), getattr(self, "root", None)
        return name if root is None else f"{name} at {root}"
