"""Studies of designs, run as programs, name networks that the training they start can find."""

import json
import runpy
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch

import benchmarks.sweep
from energydiff.cli.parser import values
from energydiff.denoisers import EnergyDenoiser
from energydiff.energies import Denoiser
from energydiff.potentials import Network, require_smooth
from energydiff.registry import find, import_modules

Designs = Mapping[str, tuple[Sequence[str], Callable[[], Denoiser]]]


@pytest.mark.parametrize("study", ["benchmarks.designs", "benchmarks.unet_designs"])
def test_every_design_can_be_trained(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[Designs] = []

    def sweep(description: str, out: object, designs: Designs, *_: object) -> None:
        caught.append(designs)

    monkeypatch.setattr(benchmarks.sweep, "sweep", sweep)
    runpy.run_module(study, run_name="__main__")
    (designs,) = caught
    assert len(designs) >= 8
    for name, (arguments, build) in designs.items():
        import_modules(values(arguments, "--import"))
        backbone = json.loads(next(values(arguments, "--model.backbone")))
        network = find(Network, backbone["class_path"], name)  # type: ignore[type-abstract]
        model = build()
        assert any(type(part).__name__ == network.__name__ for part in model.modules())
        if isinstance(model, EnergyDenoiser):
            require_smooth(model.potential)
        x = torch.randn(2, *benchmarks.sweep.SHAPE)
        assert bool(model.denoise(x, 0.5).isfinite().all())
