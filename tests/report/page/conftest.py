"""Two models, a comparison of them and their page, made once."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from energydiff.data import Normalization
from energydiff.denoisers import build_denoiser
from energydiff.energies import NoiseRange
from energydiff.evaluation import OpenedModel
from energydiff.evaluation.records import (
    Arm,
    Comparison,
    Controls,
    Cost,
    CurvePoint,
    Floor,
    Interval,
    Matched,
    Nearest,
    Provenance,
    Quality,
)
from energydiff.potentials import MLP
from energydiff.report.page import PageModel, page_model, write_page
from energydiff.saving import CHECKPOINT_KEY, LAST_CHECKPOINT, SavedModel, describe, save_model

SHAPE = (1, 6, 6)
METRICS = (
    "epoch,lyapunov/descending,step,train/loss,val/loss\n0,,16,0.5,\n0,,32,0.25,0.3\n,0.9,32,,\n"
)
CONFIG = {
    "seed_everything": 7,
    "model": {"total_images": 1000},
    "data": {"source": {"class_path": "energydiff.data.Digits"}, "batch_size": 8},
    "ema": {"halflife_images": 20_000},
}


def saved(parametrization: str) -> SavedModel:
    """Untrained, with weights that are nowhere zero."""
    denoiser = build_denoiser(MLP(SHAPE, width=16, depth=1), 0.5, parametrization)
    noise = torch.Generator().manual_seed(len(parametrization))
    with torch.no_grad():
        for weight in denoiser.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=noise))
    denoiser.noise = NoiseRange(0.02, 10.0)
    return SavedModel(denoiser, Normalization(0, 16), (), CONFIG)


def write_run(run: Path, model: SavedModel) -> Path:
    """What training leaves in a run folder, as far as the page looks."""
    (run / LAST_CHECKPOINT.parent).mkdir(parents=True)
    state = {f"denoiser.{name}": t for name, t in model.denoiser.state_dict().items()}
    checkpoint = {"state_dict": state, "global_step": 4, CHECKPOINT_KEY: describe(model)}
    torch.save(checkpoint, run / LAST_CHECKPOINT)
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (run / "metrics/version_0").mkdir(parents=True)
    (run / "metrics/version_0/metrics.csv").write_text(METRICS)
    return run


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[PageModel]:
    """An energy from a run folder and a baseline from an export."""
    folder = tmp_path_factory.mktemp("models")
    run = write_run(folder / "run", saved("inner_product"))
    save_model(saved("unconstrained"), folder / "export")
    paths = ((run, "<script>alert(1)</script>"), (folder / "export", "baseline"))
    return [page_model(OpenedModel.at(path), name=name, count=5) for path, name in paths]


@pytest.fixture(scope="session")
def comparison(models: list[PageModel]) -> Comparison:
    def arm(model: PageModel, kind: Any, forward: float) -> Arm:
        curve = [CurvePoint(s, Cost(2 * s, 2 * s * forward, s / 1e3), 30 / s) for s in (4, 8, 16)]
        quality = Quality(8.2431, 7.9137, 0.000412, None, 0.812, 0.793)
        return Arm(
            name=model.name,
            runs=[model.path],
            kind=kind,
            quality=quality,
            block_frechet=[[8.1, 8.4]],
            cost=Cost(37, 37 * forward, 0.0053),
            curve=curve,
            asymmetry=1.7e-7,
            nearest=Nearest(0.2134, 0.2251),
            certificate=model.certificate,
            bits_per_dim=1.834 if model.certificate else None,
        )

    return Comparison(
        a=arm(models[0], "energy", 2.03),
        b=arm(models[1], "baseline", 1.0),
        frechet=Interval(-0.8081, -1.14, -0.476),
        kid=Interval(-0.0002, -0.0005, 0.0001),
        over="blocks of seeds",
        matched=Matched(9.05, 8.66, None),
        matched_frechet=8.24,
        controls=Controls(
            Interval(0.02, -0.2, 0.2), Interval(6.4, 5.9, 6.9), "blur", Floor(298, 11.7, 13.1)
        ),
        provenance=Provenance(
            data="digits",
            reference="9f" * 32,
            reference_count=1499,
            extractor="digits-classifier",
            extractor_hash="ab" * 32,
            resize="none",
            quantisation="x·127.5+128",
            samples=10_000,
            blocks=2,
            seed=0,
            sampler="heun",
            steps=18,
            sigma_min=0.02,
            sigma_max=10.0,
            weights="exponential moving average",
            versions={"torch": "2.13.0"},
        ),
    )


@pytest.fixture(scope="session")
def page(
    models: list[PageModel], comparison: Comparison, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("page")
    Image.new("RGB", (30, 20), "red").save(folder / "basins.png")
    write_page(models, comparison, {"Basins": folder / "basins.png"}, folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a network."""
    webdriver = pytest.importorskip("selenium.webdriver")
    names = "chromium", "chromium-browser", "google-chrome"
    chromium = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with its chromedriver on the path")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.chrome.service.Service(driver)
    with webdriver.Chrome(options=options, service=service) as browser:
        yield browser
