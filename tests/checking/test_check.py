"""A field that is no gradient, or whose training gradient is wrong, is found, whatever it is of."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energydiff.checking import Checked, check
from energydiff.data import Normalization
from energydiff.denoisers import build_denoiser
from energydiff.energies import Energy, GaussianMixture
from energydiff.errors import NoEnergyError
from energydiff.potentials import (
    MLP,
    Backbone,
    EnergyTransformer,
    EnergyUNet,
    NaturalConvex,
    NaturalConvexConv,
    Network,
    UNet,
    Wrapped,
    fused_attention,
)
from energydiff.saving import SavedModel


def checked(energy: Any, **options: Any) -> dict[str, Checked]:
    model = SavedModel(energy, Normalization(0, 1))
    found = check(model, compiled=False, sharded=False, **options)
    return {way.way: way for way in found}


def failures(found: dict[str, Checked]) -> dict[str, set[str]]:
    return {
        name: {finding.what for finding in way.findings if not finding.holds}
        for name, way in found.items()
        if not way.holds
    }


def moved(network: Network, parametrization: str) -> Any:
    """Layers that start at zero hide what lies behind them."""
    torch.manual_seed(0)
    model = build_denoiser(network, 0.6, parametrization)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("network", "parametrization"),
    [
        (lambda: MLP((5,), width=8, depth=2, num_classes=2), "inner_product"),
        (lambda: MLP((5,), width=8, depth=2), "sum"),
        (lambda: MLP((5,), width=8, depth=2), "squared_norm"),
        (lambda: UNet((1, 4, 4), 6, (1, 2), 1, attention_resolutions=(2,)), "inner_product"),
        (lambda: EnergyUNet((1, 4, 4), 8, (1, 2), 1, attention_resolutions=(2,)), "scalar"),
        (lambda: EnergyUNet((1, 4, 4), 8, (1, 2), 1, periods=(0.5,)), "scalar"),
        (lambda: EnergyTransformer((1, 4, 4), width=8, heads=2), "scalar"),
        (lambda: NaturalConvex((5,), 4, 3, num_classes=2), "natural"),
        (lambda: NaturalConvexConv((1, 4, 4), 4, 3), "natural"),
    ],
)
def test_the_networks_of_this_package_hold(network: Any, parametrization: str) -> None:
    model = moved(network(), parametrization)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = checked(model)
    assert not failures(found)
    taken = {name for name, way in found.items() if way.findings}
    assert taken == {
        *("float64", "float32, sampling", "float32, training"),
        *("bf16-mixed, training", "exported and loaded"),
    }
    errors = [f.error for f in found["float64"].findings]
    assert all(0 <= error < 1e-4 for error in errors) and max(errors[:2]) > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(p.requires_grad for p in model.parameters())


def test_a_closed_form_holds() -> None:
    found = checked(GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.2))
    assert not failures(found)
    assert {f.what for f in found["float64"].findings} == {
        *("∇E is the slope of E", "∂E/∂log σ is the slope of E"),
        *("∇E has a symmetric Jacobian", "∇E does no work around a loop"),
    }


class Turning(GaussianMixture):
    """Says of its field that it is a gradient, and turns it."""

    def gradient(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        energy, grad = super().gradient(x, sigma, label)
        return energy, grad + 0.01 * x.flip(-1) * torch.tensor([1.0, -1.0]).to(x)


def test_a_field_that_turns_is_found_three_times() -> None:
    found = failures(checked(Turning(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.2)))
    assert found["float64"] == {
        *("∇E is the slope of E", "∇E has a symmetric Jacobian"),
        "∇E does no work around a loop",
    }


class Detached(nn.Module):
    """A wrapper that detaches: what it scales its answer by depends on the sample unseen."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        scale = x.detach().square().mean(1, keepdim=True).sqrt()
        return torch.tanh(self.inner(x) + t[:, None]) * scale


def test_a_wrapper_that_detaches_is_found() -> None:
    """Its field is not even conservative."""
    found = failures(checked(moved(Wrapped((5,), Detached), "inner_product")))
    assert {"∇E is the slope of E", "∇E has a symmetric Jacobian"} <= found["float64"]


class _WrongTwice(torch.autograd.Function):
    """Attention with a right gradient whose own derivative forgets that weights depend on Q, K."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(q, k, v)
        return F.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ v

    @staticmethod
    def backward(ctx: Any, to_out: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        q, k, v = ctx.saved_tensors
        weights = F.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1).detach()
        to_weights = to_out @ v.mT
        to_logits = weights * (to_weights - (weights * to_weights).sum(-1, keepdim=True))
        to_logits = to_logits / math.sqrt(q.shape[-1])
        return to_logits @ k, to_logits.mT @ q, weights.mT @ to_out


class Attending(Backbone):
    """One head over tokens of two numbers."""

    def __init__(self, faulty: str = "") -> None:
        super().__init__()
        self.shape, self.num_classes, self.faulty = (6,), 0, faulty
        self.maps = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        tokens = u.unflatten(1, (3, 2)) * (1 + c[:, None, None])
        q, k, v = (linear(tokens) for linear in self.maps)
        if self.faulty == "twice":
            return _WrongTwice.apply(q, k, v).flatten(1)
        answer = F.softmax(q @ k.mT / math.sqrt(2), -1) @ v
        if self.faulty == "in float32" and u.dtype == torch.float32:
            answer = answer * 1.002
        return answer.flatten(1)


def test_attention_whose_second_derivative_is_wrong_is_found() -> None:
    """Its field is right: only the training gradient can tell."""
    assert not failures(checked(moved(Attending(), "inner_product")))
    found = failures(checked(moved(Attending("twice"), "inner_product")))
    assert found["float64"] == {"training gradient is the slope of ∇E"}


def test_a_kernel_that_is_wrong_in_one_precision_is_found() -> None:
    found = failures(checked(moved(Attending("in float32"), "inner_product")))
    assert "float64" not in found
    assert "∇E with E" in found["float32, sampling"]
    assert "training gradient" in found["float32, training"]


def test_fused_attention_is_looked_at_where_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU from 128 tokens on: its backward written by hand is what training differentiates."""
    small, large = (
        EnergyTransformer(shape, 1, 8, ["feedforward"], ["attention"], heads=2)
        for shape in ((1, 4, 4), (1, 8, 16))
    )
    found = checked(moved(large, "scalar"))
    assert not failures(found)
    assert found["SDPA unfused, training"].findings

    right = fused_attention.pullback

    def wrong(q: Tensor, k: Tensor, d1: Tensor, d2: Tensor) -> tuple[Tensor, Tensor]:
        to_q, to_k = right(q, k, d1, d2)
        return 1.01 * to_q, to_k

    monkeypatch.setattr(fused_attention, "pullback", wrong)
    found = checked(moved(small, "scalar"))
    assert not failures(found)
    assert "none at this size" in found["SDPA unfused, training"].why
    reference = next(check(SavedModel(moved(large, "scalar"), Normalization(0, 1))))
    assert failures({"": reference}) == {"": {"training gradient is the slope of ∇E"}}


class Fused(Attending):
    """By PyTorch's kernel, which has no second derivative."""

    def forward(self, u: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        tokens = (u * (1 + c[:, None])).view(-1, 1, 3, 2)
        return F.scaled_dot_product_attention(*(m(tokens) for m in self.maps)).flatten(1)


def test_a_network_that_has_no_second_derivative_is_a_failure_with_its_reason() -> None:
    (found,) = checked(moved(Fused(), "inner_product")).values()
    assert not found.holds and "scaled_dot_product" in found.why


def test_a_network_that_cannot_be_loaded_again_is_a_failure_with_its_reason() -> None:
    class Local(Attending): ...

    found = checked(moved(Local(), "inner_product"))
    assert [name for name, way in found.items() if not way.holds] == ["exported and loaded"]
    assert "could not be found again by an import" in found["exported and loaded"].why


class Failing(GaussianMixture):
    """Has no kernel for float32."""

    def gradient(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        if x.dtype == torch.float32:
            raise RuntimeError("no kernel\nfor this type")
        return super().gradient(x, sigma, label)


def test_a_way_that_cannot_be_taken_is_a_failure_with_its_reason() -> None:
    found = checked(Failing(torch.zeros(1, 2), 0.2))
    assert not found["float32, sampling"].holds
    assert found["float32, sampling"].why == "no kernel for this type"
    assert found["TF32"].holds and "has none" in found["TF32"].why


def test_a_baseline_has_nothing_to_check() -> None:
    with pytest.raises(NoEnergyError, match="no energy"):
        checked(moved(MLP((5,), width=8, depth=1), "unconstrained"))


@pytest.mark.slow
def test_compiled_ways_are_taken() -> None:
    model: Energy = moved(MLP((5,), width=8, depth=1), "inner_product")
    saved = SavedModel(model, Normalization(0, 1))
    found = {w.way: w for w in check(saved, compiled=True, sharded=False)}
    assert found["compiled, training"].findings and not failures(found)
