"""Digits, a classifier of them that trains in a second, and a network that nobody may reach."""

import hashlib
import socket
from pathlib import Path

import pytest
import torch

from energydiff.data import Splits, open_data
from energydiff.evaluation import Extractor, classifier, open_extractor


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
    return open_data("digits", labels=True)


@pytest.fixture(scope="session")
def classifier_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("classifiers")


@pytest.fixture(scope="session")
def digits_extractor(labelled: Splits, classifier_cache: Path) -> Extractor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "SHOWN_IMAGES", 3_000)
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
