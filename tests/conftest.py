"""energydiff first (it guards torchvision), then what chance decides."""

import energydiff  # noqa: F401

# isort: split
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # the tensors are tiny: threads would only wait for one another
settings.register_profile("energydiff", deadline=None)
settings.load_profile("energydiff")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Networks are initialised from torch's global generator."""
    torch.manual_seed(0)
