"""The package on a device that is not the CPU: values, waits of the host, and a whole run.

Not collected by itself: ``tests/test_another_device.py`` runs it in a process of its own.
"""

import copy
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import energydiff
from energydiff.cli.training import EnergyDiffCLI
from energydiff.completion import MaskedCompletion, complete
from energydiff.denoisers import build_denoiser
from energydiff.diffusion import (
    DenoisingScoreMatching,
    DualScoreMatching,
    EnergyMatching,
    EquilibriumMatching,
    MaximumLikelihood,
    NoisyBatch,
)
from energydiff.energies import EmpiricalData, Energy, GaussianMixture, Guidance, Sum
from energydiff.landscape import (
    Effort,
    Noise,
    Surface,
    bifurcation_diagram,
    curvature,
    explore,
)
from energydiff.likelihood import gaussian_prior, heat_residual, ode_likelihood
from energydiff.memory import LogSumExpMemory
from energydiff.potentials import (
    MLP,
    EnergyTransformer,
    EnergyUNet,
    InputConvex,
    NaturalConvex,
    NaturalConvexConv,
    PublishedEnergyTransformer,
    TokenNetwork,
    Transformer,
    UNet,
)
from energydiff.sampling import certify, karras_sigmas, make_sampler
from energydiff.training import DiffusionModule, guard

sys.path.insert(0, str(Path(__file__).parent))
from device import DEVICE, Elsewhere, the_device

ROOT = Path(__file__).parents[2]
SHAPE, LABELS = (1, 4, 4), [0, 1, -1, 2]
SIGMAS = karras_sigmas(4, 0.1, 5.0)
NETWORKS = {
    "mlp": lambda: MLP(SHAPE, width=8, depth=1, num_classes=3),
    "unet": lambda: UNet(SHAPE, 8, (1, 2), 1, (2,), 8, num_classes=3),
    "transformer": lambda: Transformer(SHAPE, width=8, depth=1, heads=2, num_classes=3),
    "tokens": lambda: TokenNetwork(SHAPE, width=8, heads=2, num_classes=3),
}
SCALARS = {
    "energy unet": lambda: EnergyUNet(SHAPE, 8, (1, 2), 1, (2,), 8, num_classes=3),
    "energy unet, waves": lambda: EnergyUNet(SHAPE, 8, (1, 2), 1, num_classes=3, periods=(0.5,)),
    "energy transformer": lambda: EnergyTransformer(SHAPE, width=8, heads=2, num_classes=3),
    "published": lambda: PublishedEnergyTransformer(SHAPE, width=8, heads=2, num_classes=3),
}
CONVEX = {"input convex": lambda: InputConvex(SHAPE, width=8, depth=1, num_classes=3)}
NATURAL = {
    "natural": lambda: NaturalConvex(SHAPE, 4, 3, num_classes=3),
    "natural conv": lambda: NaturalConvexConv(SHAPE, 4, 3, num_classes=3),
}
NOISY = {"denoising": DenoisingScoreMatching, "dual": DualScoreMatching}
DENSITIES = {"likelihood": MaximumLikelihood}
BLIND = {"equilibrium": EquilibriumMatching, "energy matching": EnergyMatching}
CASES = [
    *((n, "inner_product", o) for n in NETWORKS for o in NOISY),
    *(("mlp", "sum", o) for o in NOISY),
    *((n, "unconstrained", "denoising") for n in NETWORKS),
    *((n, "scalar", o) for n in SCALARS for o in NOISY),
    *((n, "convex", "denoising") for n in CONVEX),
    *((n, "natural", o) for n in NATURAL for o in NOISY | DENSITIES),
    *(("mlp", p, o) for p in ("dot", "squared_norm") for o in BLIND),
    ("unet", "dot", "equilibrium"),
]


def pair(network: str, parametrization: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A model here, and the same there."""
    torch.manual_seed(0)
    make = (NETWORKS | SCALARS | CONVEX | NATURAL)[network]
    model = build_denoiser(make(), 0.6, parametrization)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model, there(model)


def there(thing):  # type: ignore[no-untyped-def]
    """A copy of a module, or a tensor, on the device."""
    with the_device():
        return thing.to(DEVICE) if isinstance(thing, Tensor) else copy.deepcopy(thing).to(DEVICE)


def batch(device: torch.device | str) -> NoisyBatch:
    generator = torch.Generator().manual_seed(1)
    x0, noise = (torch.randn(4, *SHAPE, generator=generator).to(device) for _ in range(2))
    sigma = torch.tensor([0.1, 0.4, 1.0, 5.0]).to(device)
    return NoisyBatch(x0, sigma, noise, 0.6, torch.tensor(LABELS).to(device))


def assert_same(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    assert isinstance(found, Elsewhere)
    assert_close(found.inner, expected, rtol=tolerance, atol=0.1 * tolerance)


@pytest.mark.parametrize(("network", "parametrization", "objective"), CASES)
def test_a_training_step_is_that_of_the_cpu_and_waits_for_nothing(
    network: str, parametrization: str, objective: str
) -> None:
    models = pair(network, parametrization)
    loss = (NOISY | DENSITIES | BLIND)[objective]()
    gradients = []
    for model, device in zip(models, ("cpu", DEVICE), strict=True):
        with the_device():
            moved = batch(device)
        loss.prepare(model)
        torch.manual_seed(2)
        with the_device() as waits:
            sum(part.mean() for part in loss(model.train(), moved).values()).backward()
        gradients.append([p.grad for p in model.parameters()])
        if objective != "energy matching":  # which pairs samples on the host
            assert not waits, waits
    for expected, found in zip(*gradients, strict=True):
        if expected is not None:
            assert_same(found, expected, 1e-3)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        *((name, 1) for name in ("euler", "heun", "dpm_solver_2m")),
        *((name, 2) for name in ("ancestral", "churn", "langevin", "mala", "hmc")),
        *((name, None) for name in ("guarded_euler", "guarded_heun")),
    ],
)
def test_every_sampler(name: str, most: int | None) -> None:
    """The samples of the CPU; the host waits for the end alone, and for seeds to arrive."""
    here, other = (m.eval().requires_grad_(False) for m in pair("mlp", "inner_product"))
    options = {"updates": 1} if name in ("langevin", "mala", "hmc") else {}
    sampler = make_sampler(name, SIGMAS, **options)
    label = torch.tensor(LABELS)
    expected = sampler(here, seeds=range(4), label=label)
    with the_device():
        found = sampler(other, seeds=range(4), label=label.to(DEVICE))
    assert_same(found.samples, expected.samples)
    assert certify(found.trace).steps == certify(expected.trace).steps
    if most is not None:
        with the_device():
            x = torch.randn(4, *SHAPE).to(DEVICE)
            there_label = label.to(DEVICE)
        with the_device() as waits:
            seeds = range(4) if sampler.stochastic else None
            sampler(other, x, seeds=seeds, label=there_label, trace=False)
        assert sum(waits.values()) <= most, waits


@pytest.mark.parametrize("name", ["armijo", "gradient_descent", "nesterov"])
def test_every_descent(name: str) -> None:
    here, other = (m.eval().requires_grad_(False) for m in pair("mlp", "dot"))
    sampler = make_sampler(name, None, steps=4, step_size=0.1, tolerance=0.0)
    expected = sampler(here, seeds=range(4), label=torch.tensor(LABELS))
    with the_device():
        found = sampler(other, seeds=range(4), label=torch.tensor(LABELS).to(DEVICE))
    assert_same(found.samples, expected.samples)


ENERGIES: dict[str, Callable[[], Energy]] = {
    "mixture": lambda: GaussianMixture(torch.linspace(-1, 1, 48).view(3, *SHAPE), 0.3),
    "points": lambda: EmpiricalData(torch.linspace(-1, 1, 48).view(3, *SHAPE)),
    "network": lambda: pair("energy unet", "scalar")[0],
    "guided": lambda: Guidance(pair("unet", "inner_product")[0], 1.0),
    "sum": lambda: Sum([ENERGIES["mixture"](), ENERGIES["network"]()], [1.0, 0.5]),
    "tempered": lambda: ENERGIES["network"]() / 2,
}


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize(
    "answer",
    [
        lambda e, x, label: e.value_and_grads(x, 0.5, label),
        lambda e, x, label: (e.free_energy(x, 0.5, label), e.free_energy_slope(x, 0.5, label)),
        lambda e, x, label: (e.hessian_vector_product(x, 0.5, x, label),),
    ],
    ids=["value_and_grads", "free_energy", "hessian"],
)
def test_every_energy(name: str, answer: Callable[..., tuple[Tensor, ...]]) -> None:
    energy = ENERGIES[name]().eval().requires_grad_(False)
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(3))
    label = torch.tensor([0, 1, 0, 2]) if energy.num_classes else None
    expected, other = answer(energy, x, label), there(energy)
    with the_device():
        found = answer(other, x.to(DEVICE), None if label is None else label.to(DEVICE))
    for mine, yours in zip(expected, found, strict=True):
        assert_same(yours, mine, 1e-3)


def test_the_landscape() -> None:
    """Curvature, the heat equation, and likelihoods by the energy and by the flow."""
    energy = pair("mlp", "inner_product")[0].eval().requires_grad_(False)
    other = there(energy)
    x = 0.5 * torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(4))
    prior = gaussian_prior(SHAPE, 0.6)
    other_prior = there(prior)

    def answers(energy: Energy, prior: Energy, x: Tensor) -> tuple[Tensor, ...]:
        return (
            curvature(energy, x, 0.5, iterations=4).highest,
            heat_residual(energy, x, 0.5).relative,
            ode_likelihood(energy, x, 0.1, 5.0, prior).nats,
        )

    expected = answers(energy, prior, x)
    with the_device():
        found = tuple(one.cpu() for one in answers(other, other_prior, x.to(DEVICE)))
    for mine, yours in zip(expected, found, strict=True):
        assert_close(yours, mine, rtol=1e-3, atol=1e-3)


def test_critical_points() -> None:
    """Minima, saddles, their graph and a bifurcation diagram, of points in the plane."""
    data = torch.tensor([[0.95, 0.0], [-0.7, 0.87], [-0.7, -0.87]]).double()
    few = Effort(starts=6, noise=12, index_two=2)

    def answers(energy: Energy, data: Tensor) -> tuple[Tensor, ...]:
        surface = Surface(energy)
        found = explore(surface, data, 0.6, few)
        diagram = bifurcation_diagram(Noise(surface), found.points.x[:1], 0.6, (0.55, 0.62))
        value = found.points.free_energy.sort().values
        return value, found.points.index.sort().values, diagram.branches[0].free_energy

    expected = answers(EmpiricalData(data), data)
    with the_device():
        found = answers(there(EmpiricalData(data)), there(data))
    assert_close(found, expected)


def test_a_memory_retrieves() -> None:
    stored = torch.where(
        torch.randn(5, 16, generator=torch.Generator().manual_seed(5)) < 0, -1.0, 1.0
    )
    memory = LogSumExpMemory(beta=4.0).store(stored)
    cue = stored + 0.3
    expected, other = memory.retrieve(cue).samples, there(memory)
    with the_device():
        found = other.retrieve(cue.to(DEVICE)).samples
    assert_same(found, expected)


def test_a_completion() -> None:
    torch.manual_seed(0)
    network = MaskedCompletion((1, 4, 4), patch_size=2, width=8, heads=2).eval()
    network.requires_grad_(False)
    other = there(network)
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(6))
    hidden = torch.tensor([[True, False, False, True], [False, True, False, False]])
    expected = complete(network, x, hidden).samples
    with the_device():
        found = complete(other, x.to(DEVICE), hidden.to(DEVICE)).samples
    assert_same(found, expected)


class Arrived:
    def synchronize(self) -> None:
        pass


def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training, validation, monitor, calibration, export, under Lightning; waits are counted."""
    from lightning.pytorch.accelerators import Accelerator
    from lightning.pytorch.strategies import SingleDeviceStrategy

    class Other(Accelerator):
        setup_device = teardown = lambda *_: None
        parse_devices = staticmethod(lambda devices: [0])
        get_parallel_devices = staticmethod(lambda devices: [DEVICE])
        auto_device_count = staticmethod(lambda: 1)
        is_available = staticmethod(lambda: True)
        name = staticmethod(lambda: "other")
        get_device_stats = lambda *_: {}  # noqa: E731

    class CLI(EnergyDiffCLI):
        def instantiate_trainer(self, **kwargs):  # type: ignore[no-untyped-def]
            place = {"accelerator": Other(), "strategy": SingleDeviceStrategy(DEVICE)}
            return super().instantiate_trainer(**kwargs, **place)

    arguments = ["--config", str(ROOT / "tests/end_to_end/tiny_mlp.yaml")]
    arguments += ["--trainer.default_root_dir", str(tmp_path)]
    with the_device():
        CLI("fit", arguments).go()
    assert (tmp_path / "export" / "model.safetensors").is_file()
    assert energydiff.load(tmp_path).shape == (1, 8, 8)

    # The verdict on a step is read when the next begins, from a copy that came meanwhile.
    monkeypatch.setattr(guard, "_to_host", lambda bad: (bad.inner, Arrived()))
    monkeypatch.setattr(DiffusionModule, "_fused", True)
    arguments += ["--monitor.every_images", "0", "--val_every_images", "0"]
    counted: list[Counter[tuple[str, str]]] = []
    for steps in (8, 16):
        there_now = [*arguments, "--trainer.default_root_dir", str(tmp_path / str(steps))]
        with the_device() as waits:
            CLI("fit", [*there_now, "--model.total_images", str(32 * steps)]).go()
            counted.append(Counter(waits))
    (few, many) = counted
    each_step = {where: (many[where] - few[where]) / 8 for where in many}
    assert sum(each_step.values()) < 1, {w: n for w, n in each_step.items() if n}
