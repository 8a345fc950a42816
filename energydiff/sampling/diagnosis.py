"""How far the samples of a sampler that has a say in it can be relied on."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Diagnosis(ABC):
    """A record of numbers that a sampler draws up from the trace of all its samples."""

    @abstractmethod
    def __str__(self) -> str:
        """In a sentence."""

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return asdict(self)
