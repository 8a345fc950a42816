"""A small labelled set of images, its extractor, and models that make such images."""

from pathlib import Path

import pytest
import torch

from energydiff.data import Normalization
from energydiff.denoisers import build_denoiser
from energydiff.evaluation.data import EvaluationData
from energydiff.evaluation.drawing import Drawing
from energydiff.evaluation.measurement import Measurement
from energydiff.potentials import MLP
from energydiff.saving import SavedModel, save_model


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where features, classifiers and references are kept for the whole session."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def measurement(store: Path) -> Measurement:
    """Of digits in the classifier's features: 40 samples in two blocks, three Euler steps."""
    data = EvaluationData(small_reference=True)
    return Measurement.open(data, 40, 2, Drawing("euler", 3, 0, 16, 1, "cpu"), store)


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
        save_model(SavedModel(model, Normalization(0, 16), 0.02, 10.0), paths[kind])
    return paths
