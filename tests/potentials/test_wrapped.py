"""Any nn.Module as the field of an energy."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import energydiff
from energydiff.data import Normalization
from energydiff.denoisers import build_denoiser
from energydiff.diffusion import DenoisingScoreMatching, NoisyBatch
from energydiff.energies import NoiseRange
from energydiff.errors import UserError
from energydiff.potentials import Wrapped, require_smooth
from energydiff.saving import SavedModel

SHAPE = (1, 4, 4)


class Plain(nn.Module):
    """Called f(x, t[, label]); answers in one of the usual ways."""

    def __init__(self, width: int = 8, classes: int = 0, answer: str = "tensor") -> None:
        super().__init__()
        self.first, self.last = nn.Linear(17, width), nn.Linear(width, 16)
        self.labels = nn.Embedding(classes, width) if classes else None
        self.answer = answer

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> object:
        h = self.first(torch.cat([x.flatten(1), t[:, None] / 100], 1))
        if self.labels is not None:
            h = h + self.labels(label)
        field = self.last(torch.nn.functional.silu(h)).view_as(x)
        answers = {
            "tensor": field,
            "tuple": (field, 1),
            "object": SimpleNamespace(sample=field),
            "flat": field.flatten(1),
            "list": [field],
        }
        return answers[self.answer]


def trained(network: Wrapped, label: Tensor | None = None) -> float:
    """How much one step of AdamW on one batch lowers its loss."""
    torch.manual_seed(0)
    model = build_denoiser(network, 0.8, noise=NoiseRange(0.02, 10.0)).train()
    x0 = torch.randn(16, *network.shape).tanh()
    batch = NoisyBatch(x0, torch.full((16,), 0.5), torch.randn_like(x0), 0.8, label)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = DenoisingScoreMatching()(model, batch)["denoising"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[0] - losses[-1]


@pytest.mark.parametrize("answer", ["tensor", "tuple", "object"])
def test_a_plain_module_trains_as_an_energy(answer: str) -> None:
    assert trained(Wrapped(SHAPE, Plain, {"answer": answer}, time_scale=250)) > 0.01


def test_an_answer_of_another_shape_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"Plain answered \(16, 16\) to samples \(16, 1, 4, 4\)"):
        trained(Wrapped(SHAPE, Plain, {"answer": "flat"}))
    with pytest.raises(UserError, match=r"Plain answered list to samples \(16, 1, 4, 4\)"):
        trained(Wrapped(SHAPE, Plain, {"answer": "list"}))


def test_labels_are_passed_and_an_unknown_one_is_the_last() -> None:
    network = Wrapped(SHAPE, Plain, {"classes": 3}, num_classes=2)
    assert trained(network, torch.arange(16) % 2) > 0.01
    u, c = torch.randn(2, *SHAPE), torch.zeros(2)
    unknown = network(u, c, torch.tensor([-1, -1]))
    assert torch.equal(network(u, c), unknown)
    assert not torch.equal(network(u, c, torch.tensor([0, 1])), unknown)


def test_the_module_is_called_in_its_own_time_and_labels(monkeypatch) -> None:
    network = Wrapped(SHAPE, Plain, {"classes": 4}, time_scale=250, num_classes=3)
    u, c = torch.randn(3, *SHAPE), torch.tensor([-1.0, 0.0, 0.5])
    called = []

    def record(*inputs: Tensor) -> Tensor:
        called.append(inputs)
        return u

    monkeypatch.setattr(network.network, "forward", record)
    network(u, c, torch.tensor([2, -1, 0]))
    network(u, c)
    assert [inputs[1].tolist() for inputs in called] == [[-250, 0, 125]] * 2
    assert [inputs[2].tolist() for inputs in called] == [[2, 3, 0], [3, 3, 3]]


def test_a_fault_goes_by_the_name_of_the_module() -> None:
    class Kinked(Plain):
        def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> object:
            return super().forward(x.relu(), t)

    with pytest.raises(UserError, match=r"^Kinked makes no energy: .* jumps"):
        require_smooth(Wrapped(SHAPE, Kinked))


def test_the_score_is_the_gradient_of_the_energy_in_float64() -> None:
    torch.manual_seed(0)
    model = build_denoiser(Wrapped(SHAPE, Plain), 0.8).double().eval()
    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    direction, h = torch.randn_like(x), 1e-6
    with torch.no_grad():
        slope = (model(x + h * direction, 0.7) - model(x - h * direction, 0.7)) / (2 * h)
        along = -(model.score(x, 0.7) * direction).flatten(1).sum(1)
    torch.testing.assert_close(slope, along, rtol=1e-6, atol=1e-6)


def test_an_export_names_the_module_and_loads_it_again(tmp_path, monkeypatch) -> None:
    module = tmp_path / "brought.py"
    module.write_text(
        "import torch\nfrom torch import nn\n\n\nclass Brought(nn.Module):\n"
        "    def __init__(self, width=4):\n        super().__init__()\n"
        "        self.layer = nn.Linear(16, 16)\n        self.width = width\n\n"
        "    def forward(self, x, t):\n"
        "        return torch.tanh(self.layer(x.flatten(1))).view_as(x)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import sys

    import brought

    model = build_denoiser(Wrapped(SHAPE, brought.Brought, {"width": 5}), 0.8)
    model.noise = NoiseRange(0.02, 10.0)
    energydiff.save_model(SavedModel(model, Normalization(0, 16)), tmp_path / "model")
    again = energydiff.load(tmp_path / "model")
    assert again.potential.backbone.network.width == 5
    x = torch.randn(2, *SHAPE)
    assert torch.equal(model.eval()(x, 1.0), again(x, 1.0))
    monkeypatch.delitem(sys.modules, "brought")
    with pytest.raises(UserError, match=r"brought has not been imported.*--import brought"):
        energydiff.load(tmp_path / "model")
    with pytest.raises(UserError, match=r"network of Wrapped is brought.Brought.*--import brought"):
        Wrapped(SHAPE, "brought.Brought")
    assert "brought" not in sys.modules


def test_a_unet_of_diffusers_is_smooth_trains_and_comes_back(tmp_path) -> None:
    diffusers = pytest.importorskip("diffusers")
    arguments = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": [16, 32],
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 8,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    }
    network = Wrapped((1, 8, 8), diffusers.UNet2DModel, arguments, time_scale=250)
    require_smooth(network)
    assert trained(network) > 0
    model = build_denoiser(network, 0.8).eval()
    energydiff.save_model(SavedModel(model, Normalization(0, 16)), tmp_path)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(energydiff.load(tmp_path)(x, 0.7), model(x, 0.7))
