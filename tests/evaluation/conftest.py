"""Digits, a classifier of them that trains in a second, and a network that nobody may reach."""

import hashlib
import shutil
import socket
from pathlib import Path

import pytest
import torch

from energydiff.data import Digits, Normalization, Splits
from energydiff.denoisers import build_denoiser
from energydiff.energies import NoiseRange
from energydiff.evaluation import (
    EvaluationData,
    Extractor,
    Measurement,
    Settings,
    classifier,
    open_extractor,
)
from energydiff.potentials import MLP
from energydiff.saving import SavedModel, save_model

QUICK = 3_000  # images that a classifier is shown


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks up a name or connects fails the test."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"the network was asked for: {args}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def labelled() -> Splits:
    return Digits(labels=True).open()


@pytest.fixture(scope="session")
def classifier_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("classifiers")


@pytest.fixture(scope="session")
def digits_extractor(labelled: Splits, classifier_cache: Path) -> Extractor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "SHOWN_IMAGES", QUICK)
        return open_extractor(
            "classifier", train=labelled.train, held_out=labelled.held_out, cache=classifier_cache
        )


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the layout of the published Inception weights and random numbers in it."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *args: None)
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    generator = torch.Generator().manual_seed(0)
    state = network.state_dict()
    for name, weight in state.items():
        if name.endswith("conv.weight"):  # keeps the variance from layer to layer
            weight.normal_(0, (2 / weight[0].numel()) ** 0.5, generator=generator)
    file = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state, file)
    return file


@pytest.fixture(scope="session")
def inception(inception_weights: Path) -> Extractor:
    return open_extractor("inception-v3-compat", weights=inception_weights)


@pytest.fixture
def sha256():
    return lambda file: hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def measurement(
    digits_extractor: Extractor,
    classifier_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Measurement:
    """Of digits in the classifier's features: 40 samples in two blocks, three Euler steps."""
    monkeypatch.setattr(classifier, "SHOWN_IMAGES", QUICK)
    data = EvaluationData(small_reference=True)
    store = shutil.copytree(classifier_cache, tmp_path / "store")  # its classifier is trained
    settings = Settings(
        40, 2, sampler="euler", steps=3, batch_size=16, accelerator="cpu", store=store
    )
    return Measurement.open(data, settings)


@pytest.fixture
def exported(tmp_path: Path) -> dict[str, Path]:
    """An untrained energy and an untrained baseline of digits, by kind."""
    paths = {}
    for kind, parametrization in (("energy", "inner_product"), ("baseline", "unconstrained")):
        torch.manual_seed(0)
        model = build_denoiser(MLP((1, 8, 8), width=16, depth=1), 0.85, parametrization)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        paths[kind] = tmp_path / kind
        model.noise = NoiseRange(0.02, 10.0)
        save_model(SavedModel(model, Normalization(0, 16)), paths[kind])
    return paths
