"""With the weights shared out between two ranks the gradient is that of one process, exactly."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.torch_version import TorchVersion

from energydiff.data import Normalization
from energydiff.errors import UserError
from energydiff.potentials import MLP, PublishedEnergyTransformer
from energydiff.training import DiffusionModule
from energydiff.training.strategies import Sharded, share_weights

SCRIPT = Path(__file__).with_name("sharded_ranks.py")
ALONE = runpy.run_path(str(SCRIPT))
PARTS = {"energy unet": 2, "energy unet, dual": 2, "energy transformer, dual": 4}


@pytest.fixture(scope="module")
def found(python: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("sharded")
    done = python(SCRIPT, folder, folder=folder)
    assert done.code == 0, done.err
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.parametrize("case", ALONE["CASES"])
def test_the_accumulated_gradient_is_that_of_one_process(case: str, found: dict[str, Any]) -> None:
    """In float64; each rank holds about half of the weights, and scalar networks have parts."""
    expected = ALONE["gradient"](ALONE["module_of"](case))
    got = found[case]["gradient"]
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-11, atol=1e-13, msg=name)
    assert found[case]["parts"] == PARTS.get(case, 0)
    assert found[case]["held"] < 0.55


def test_a_weight_that_cannot_be_cut_is_a_sentence() -> None:
    network = PublishedEnergyTransformer((1, 4, 4), width=8, depth=1, heads=2)
    module = DiffusionModule(network, 0.6, Normalization(0, 16), "scalar")
    mesh: Any = None
    with pytest.raises(UserError, match="log_gamma is a single number: use ddp"):
        share_weights(module, mesh)


def test_an_older_pytorch_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.12.1"))
    with pytest.raises(UserError, match=r"needs PyTorch 2\.13 .* this is 2\.12\.1: use ddp"):
        Sharded()


def test_shared_out_or_not_a_module_is_asked_alike() -> None:
    """Without a strategy that shares them out the weights stay what they are."""
    module = DiffusionModule(MLP((4,), width=4, depth=1), 0.6, Normalization(0, 16))
    module.configure_model()
    assert type(module) is DiffusionModule
