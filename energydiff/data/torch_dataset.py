"""Any map-style ``torch.utils.data.Dataset``: one's own, torchvision's, …"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from energydiff.data.items import Items, ItemSpec, Labels
from energydiff.data.source import Splits
from energydiff.errors import UserError


@dataclass(frozen=True)
class TorchDataset(ItemSpec):
    """The items of a map-style data set, which must be the same whenever they are asked for.

    Class names are its ``classes``, labels its ``targets`` or ``labels``, where it has them; labels
    are read item by item otherwise.

    Args:
        dataset: the data set: in a configuration by class_path and init_args, in Python an object.
        held_out_dataset: another for the held-out part, as the published test set.
    """

    dataset: Dataset  # type: ignore[type-arg]  # jsonargparse finds subclasses of the bare class
    held_out_dataset: Dataset | None = None  # type: ignore[type-arg]

    def open(self) -> Splits:
        """Refuses a data set without a length, and what :meth:`ItemSpec.splits` refuses."""
        held_out = self.held_out_dataset
        return self.splits(
            self._items(self.dataset), None if held_out is None else self._items(held_out)
        )

    def describe(self) -> str:
        return f"data set {type(self.dataset).__name__}"

    def _items(self, dataset: Any) -> Items:
        where = type(dataset).__name__
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise UserError(
                f"{where} has no length: data.source.dataset must be a map-style data set, with"
                " __len__ and __getitem__."
            )
        labels = _labels(dataset) if self.labels else None
        if labels is not None and len(labels) != len(dataset):
            raise UserError(f"{where} has {len(labels)} labels for its {len(dataset)} items.")
        classes = getattr(dataset, "classes", ())
        named = isinstance(classes, list | tuple)
        return Items(dataset, where, labels, tuple(str(name) for name in classes) if named else ())


def _labels(dataset: Any) -> Labels | None:
    """All labels, where the data set has them in one piece."""
    if getattr(dataset, "target_transform", None) is not None:
        return None  # what torchvision hands out are not its targets then
    for name in ("targets", "labels"):
        labels = getattr(dataset, name, None)
        if isinstance(labels, Tensor | np.ndarray | list | tuple):
            return np.asarray(labels)
    return None
