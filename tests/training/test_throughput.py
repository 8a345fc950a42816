"""What is told of the speed of training is measured and counted."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from energydiff.diffusion import DenoisingScoreMatching, MonotoneDenoiser, Penalised
from energydiff.potentials import MLP
from energydiff.training import DiffusionData, DiffusionModule, throughput
from energydiff.training import data as data_module
from energydiff.training.stream import with_training_draws
from energydiff.training.throughput import Throughput, operations_per_image, peak_memory

WIDTH, SIZE = 8, 64


class Clock:
    """Stands still but where something takes its time."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def within(self, work: Any, seconds: float) -> Any:
        def slow(*arguments: Any) -> Any:
            self.now += seconds
            return work(*arguments)

        return slow


def batch(data: DiffusionData, count: int = 3) -> dict[str, torch.Tensor]:
    items = [data.stream[n] for n in range(count)]
    return with_training_draws(torch.utils.data.default_collate(items), 0, flip=False)


def unconstrained(data: DiffusionData, **options: Any) -> DiffusionModule:
    network = MLP(data.shape, width=WIDTH, depth=1)
    how: dict[str, Any] = {"parametrization": "unconstrained", "batch_size": data.batch_size}
    return DiffusionModule(network, data.sigma_data, data.normalization, **(how | options))


def test_operations_are_those_of_the_matrix_products(data: DiffusionData) -> None:
    """One image: two operations for each weight forward, and four backward but for what the
    gradient of the first layer in its input would take."""
    module = unconstrained(data)
    matrices = {n: p.numel() for n, p in module.named_parameters() if p.ndim == 2}
    first = [n for n in matrices if n.endswith(("backbone.input.weight", "noise.0.weight"))]
    assert len(first) == 2
    expected = 6 * sum(matrices.values()) - 2 * sum(matrices[n] for n in first)
    assert operations_per_image(module, batch(data)) == expected


@pytest.mark.parametrize("compile", [False, True])
def test_counting_leaves_everything_as_it_was(data: DiffusionData, compile: bool) -> None:
    """Also of an objective that has a state, and of a model whose compiler would fail."""
    objective = Penalised(DenoisingScoreMatching(), [MonotoneDenoiser()])
    module = unconstrained(data, parametrization="sum", objective=objective)
    if compile:
        module.denoiser.compiler = pytest.fail
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    assert operations_per_image(module, batch(data)) > 0
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize(("reading", "computing"), [(0.5, 0.0), (0.0, 2.0), (0.5, 12.0)])
def test_who_waits_for_whom_is_told(
    reading: float, computing: float, data: DiffusionData, make_trainer, tmp_path, monkeypatch
) -> None:
    """Seconds that an image takes to be read, and a step to be computed: 8 images a step."""
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    monkeypatch.setattr(data_module, "time", clock)
    read = type(data.train_source).__getitem__
    monkeypatch.setattr(type(data.train_source), "__getitem__", clock.within(read, reading))
    module = unconstrained(data)
    step = module.training_step
    monkeypatch.setattr(module, "training_step", clock.within(step, computing))
    logger = CSVLogger(tmp_path)
    trainer = make_trainer(
        max_steps=12, logger=logger, log_every_n_steps=4, callbacks=[Throughput()]
    )
    trainer.fit(module, data)
    rows = np.genfromtxt(f"{logger.log_dir}/metrics.csv", delimiter=",", names=True)
    found = {name: rows[name][np.isfinite(rows[name])] for name in rows.dtype.names}
    each = 8 * reading + computing
    assert found["data_wait"] == pytest.approx(8 * reading / each, rel=1e-6)
    assert found["images_per_second"] == pytest.approx(8 / each, rel=1e-6)
    operations = operations_per_image(module, batch(data))
    assert found["teraflops"] == pytest.approx(8 / each * operations / 1e12, rel=1e-6)
    assert "utilisation" not in found  # nobody knows what this processor can do
    assert len(found["data_wait"]) == 3
    peak = peak_memory(torch.device("cpu")) / 2**30
    assert 0 < found["memory_peak_gib"].min() <= found["memory_peak_gib"].max() <= peak
