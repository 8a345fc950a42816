"""The compiled gradient equals the eager one, trains, samples, and stays out of saved models."""

import copy
import pickle

import pytest
import torch

from energydiff.denoisers import EnergyDenoiser
from energydiff.denoisers.compiled import CompiledGradient
from energydiff.errors import UserError
from energydiff.potentials import MLP, InnerProduct
from energydiff.sampling import Euler, certify, karras_sigmas

SHAPE = (1, 4, 4)


def make_model(backend: str = "aot_eager", num_classes: int = 0) -> EnergyDenoiser:
    torch.manual_seed(0)
    backbone = MLP(SHAPE, width=16, depth=1, num_classes=num_classes)
    torch.nn.init.normal_(backbone.output.weight, std=0.1)
    model = EnergyDenoiser(InnerProduct(backbone), 0.5, compile=True)
    model.compiled = CompiledGradient(backend)
    return model


def without_compiler(model: EnergyDenoiser) -> EnergyDenoiser:
    eager = copy.deepcopy(model)
    eager.compiled = None
    return eager


def check_trains_and_samples(model: EnergyDenoiser) -> None:
    x, sigma = torch.randn(5, *SHAPE), torch.rand(5) + 0.1
    grads = []
    for each in (model, without_compiler(model)):
        each.denoise(x, sigma).square().mean().backward()
        grads.append({n: p.grad for n, p in each.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-4, atol=1e-6)
    results = []
    for each in (model.eval(), without_compiler(model)):
        sampler = Euler(karras_sigmas(steps=3, sigma_min=0.1, sigma_max=2.0), final_denoise=True)
        results.append(sampler(each, seeds=range(4)))
    torch.testing.assert_close(results[0].samples, results[1].samples, rtol=1e-4, atol=1e-5)
    assert certify(results[0].trace).rises == certify(results[1].trace).rises


def test_equals_eager_in_training_and_sampling() -> None:
    check_trains_and_samples(make_model())


@pytest.mark.slow
def test_inductor_equals_eager() -> None:
    check_trains_and_samples(make_model("inductor"))


def test_labels_and_the_gradient_with_respect_to_x() -> None:
    model = make_model(num_classes=3)
    eager = without_compiler(model)
    x, label = torch.randn(4, *SHAPE), torch.tensor([0, 1, 2, -1])
    torch.testing.assert_close(model.score(x, 0.3, label), eager.score(x, 0.3, label))
    vector = torch.randn_like(x)
    torch.testing.assert_close(
        model.hessian_vector_product(x, 0.3, vector), eager.hessian_vector_product(x, 0.3, vector)
    )


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: type) -> None:
    model = make_model().eval()
    x = torch.randn(3, *SHAPE)
    with mode():
        energy, grad = model.value_and_grad(x, 0.5)
    assert not energy.requires_grad and not grad.requires_grad
    torch.testing.assert_close(grad, without_compiler(model).value_and_grad(x, 0.5)[1])


def test_what_is_compiled_is_in_no_copy_and_no_saved_state() -> None:
    model = make_model()
    before = list(model.state_dict())
    x = torch.randn(3, *SHAPE)
    expected = model.denoise(x, 0.5)
    assert list(model.state_dict()) == before == list(without_compiler(model).state_dict())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.compiled is not model.compiled and twin.compiled._function is None
        torch.testing.assert_close(twin.denoise(x, 0.5), expected)


def test_a_wrong_compiled_gradient_is_refused() -> None:
    model = make_model()
    assert model.compiled is not None
    model.compiled._function = lambda energy, x, sigma, label: (energy(x, sigma, label), 1.1 * x)
    with pytest.raises(UserError, match="compiled gradient differs"):
        model.denoise(torch.randn(3, *SHAPE), 0.5)


def test_a_compiler_that_fails_is_reported_in_one_sentence() -> None:
    model = make_model()
    assert model.compiled is not None

    def broken(*_: object) -> None:
        raise torch._dynamo.exc.TorchDynamoException("no compiler here\ndetails")

    model.compiled._function = broken
    with pytest.raises(
        UserError, match=r"\(no compiler here\); build the model with compile=False"
    ):
        model.denoise(torch.randn(3, *SHAPE), 0.5)
