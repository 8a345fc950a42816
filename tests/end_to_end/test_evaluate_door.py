"""``energydiff evaluate``: what it leaves, and what it says when it cannot."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import energydiff
from energydiff.data import Digits, Normalization
from energydiff.denoisers import build_denoiser
from energydiff.energies import GaussianMixture, NoiseRange
from energydiff.evaluation import classifier
from energydiff.potentials import MLP
from energydiff.saving import LAST_CHECKPOINT, SavedModel

FEW = ("-n", 40, "--blocks", 2, "--sampler", "euler", "--steps", 2, "--accelerator", "cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests, so that the classifier is trained once."""
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture
def digits_model(tmp_path: Path):  # type: ignore[no-untyped-def]
    def save(name: str, parametrization: str = "inner_product", channels: int = 1) -> Path:
        torch.manual_seed(0)
        model = build_denoiser(MLP((channels, 8, 8), width=16, depth=1), 0.85, parametrization)
        model.noise = NoiseRange(0.02, 10.0)
        saved = SavedModel(model, Normalization(0, 16))
        energydiff.save_model(saved, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def evaluate(door, store: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setattr(classifier, "SHOWN_IMAGES", 3_000)
    data = ("--data", "configs/data/digits.yaml")
    return lambda command, *arguments, data=data: door(
        "evaluate", command, *data, *FEW, "--store", store, *arguments
    )


def written(out: str) -> Path:
    return Path(out.rsplit("Written to ", 1)[1].strip().removesuffix("."))


def test_fid_leaves_a_result_with_all_it_depends_on(evaluate, digits_model) -> None:
    done = evaluate("fid", digits_model("a"))
    assert done.code == 0, done.err
    found = json.loads(written(done.out).read_text())
    provenance = found["provenance"]
    assert provenance["samples"] == 40 and provenance["blocks"] == 2
    assert provenance["extractor"] == "classifier" and len(provenance["extractor_hash"]) == 64
    assert provenance["reference_count"] == 1_499 and len(provenance["reference"]) == 64
    assert provenance["weights"] == "exponential moving average"
    assert {"energydiff", "torch", "torch-fidelity"} <= provenance["versions"].keys()
    assert len(found["block_frechet"]) == 2
    assert f"classifier, SHA-256 {provenance['extractor_hash']}" in done.out


def test_compare_prints_a_verdict(evaluate, digits_model) -> None:
    a, b = digits_model("a"), digits_model("b", "unconstrained")
    done = evaluate("compare", a, b, "--curve", "[1,2]")
    assert done.code == 0, done.err
    found = json.loads(written(done.out).read_text())
    assert found["verdict"] in ("better", "worse", "not separable")
    assert f"A is {found['verdict']}" in " ".join(done.out.split())
    assert [point["steps"] for point in found["a"]["curve"]] == [1, 2]


def test_report_writes_one_page_about_two_models(evaluate, digits_model, tmp_path: Path) -> None:
    a, b, out = digits_model("a"), digits_model("b", "unconstrained"), tmp_path / "report.html"
    done = evaluate("report", a, b, "--curve", "[2]", "--out", out)
    assert done.code == 0, done.err
    page = out.read_text()
    assert "a against b" in page and "Quality" in page and "It has no energy" in page
    compared = written(done.out.rsplit("Written to ", 1)[0])
    (comparison,) = re.findall(r'<section aria-labelledby="quality".*?</section>', page, re.DOTALL)
    again = evaluate("report", a, b, "--comparison", compared, "--out", out)
    assert again.code == 0, again.err
    assert comparison in out.read_text() and str(compared) not in again.out
    other = evaluate("report", b, a, "--comparison", compared, "--out", out)
    assert f"{compared} compares {a} with {b}, not the models of this page" in other.sentence
    alone = evaluate("report", a, "--out", out)
    assert alone.code == 0, alone.err
    assert "a against b" not in out.read_text()
    assert "one model or two, not 3" in evaluate("report", a, b, a, "--out", out).sentence


def test_a_model_is_read_once(
    door, tiny_mlp: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the page, the comparison and the search for the data alike; a run and an export."""
    monkeypatch.setattr(classifier, "SHOWN_IMAGES", 3_000)
    run, other = tmp_path / "run", tmp_path / "other"
    fit = ("fit", "--config", tiny_mlp, "--model.total_images", 64, "--finish.evaluations", 64)
    assert door(*fit, "--trainer.default_root_dir", run).code == 0
    shutil.copytree(run / "export", other)
    models = [run / LAST_CHECKPOINT, other / "model.safetensors"]
    read: list[Path] = []

    def counts(load):  # type: ignore[no-untyped-def]
        def counted(file, *arguments, **options):  # type: ignore[no-untyped-def]
            if not options.get("mmap"):  # which reads no weights until they are asked for
                read.append(Path(file))
            return load(file, *arguments, **options)

        return counted

    monkeypatch.setattr(torch, "load", counts(torch.load))
    monkeypatch.setattr(safetensors.torch, "load_file", counts(safetensors.torch.load_file))
    few = (*FEW, "--store", store)
    for command, expected in (
        (("report", run, other, "--curve", "[2]", "--out", tmp_path / "page.html"), [1, 1]),
        (("compare", run, other, "--curve", "[2]"), [1, 1]),
        (("fid", run), [1, 0]),
    ):
        read.clear()
        done = door("evaluate", *command, *few)
        assert done.code == 0, done.err
        assert [read.count(model) for model in models] == expected, command


def test_what_a_mixture_has_no_number_of_is_null(evaluate, digits_model, tmp_path: Path) -> None:
    """Forward passes are counted in those of B, and a closed form has none."""
    mixture = GaussianMixture(torch.zeros(1, 1, 8, 8), 0.5)
    mixture.noise = NoiseRange(0.02, 10.0)
    energydiff.save_model(SavedModel(mixture, Normalization(0, 16)), tmp_path / "mixture")
    done = evaluate("compare", digits_model("a"), tmp_path / "mixture", "--curve", "[1]")
    assert done.code == 0, done.err
    text = written(done.out).read_text()
    assert "NaN" not in text
    assert json.loads(text)["a"]["cost"]["forward_equivalents"] is None


def test_earlier_results_compare_unless_they_were_measured_otherwise(
    evaluate, digits_model, door, store: Path
) -> None:
    files = [written(evaluate("fid", digits_model(name)).out) for name in ("a", "b")]
    done = door("evaluate", "compare", *files)
    assert done.code == 0 and "not separable" in done.out
    other = written(evaluate("fid", digits_model("a"), "--seed", 1).out)
    refused = door("evaluate", "compare", files[0], other)
    assert refused.sentence == (
        "error: these results cannot be compared: their seed differs (0 and 1)."
    )
    assert "not a result" in door("evaluate", "compare", files[0], "configs/debug.json").sentence


def test_a_folder_of_images_is_measured_too(evaluate, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i}.png")
    done = evaluate("fid", folder)
    assert done.code == 0, done.err
    assert json.loads(written(done.out).read_text())["provenance"]["sampler"] == "none"
    few = evaluate("fid", folder, "-n", 60)
    assert "has 40 images, fewer than -n 60" in few.sentence
    Image.fromarray(pixels[0, :4]).save(folder / "7.png")
    assert evaluate("fid", folder).sentence.endswith("measure images of one size.")
    (folder / "7.png").write_bytes(b"not an image")
    broken = evaluate("fid", folder).sentence
    assert "7.png" in broken and broken.endswith("repair or remove it.")
    assert "give --data" in evaluate("fid", folder, data=()).sentence


def test_mistakes_are_told_in_a_sentence(evaluate, digits_model, tmp_path: Path) -> None:
    model, colour = digits_model("a"), digits_model("c", channels=3)
    large = tmp_path / "large.yaml"
    large.write_text("source: Digits\n")
    data = ("--data", large)
    sentences = {
        "reference has 1 channel, the samples have 3": evaluate("fid", colour),
        "fewer than the 4,000 samples": evaluate("fid", model, "-n", 4_000, data=data),
        "two blocks or more": evaluate("fid", model, "-n", 41),
        "there is no extractor 'nothing'": evaluate("fid", model, "--data.extractor", "nothing"),
        "--weights": evaluate("fid", model, "--data.extractor", "inception-v3-compat"),
        "nowhere does not exist; give a run folder": evaluate("fid", tmp_path / "nowhere"),
        "nothing does not exist; give a run": evaluate("fid", tmp_path / "nothing", data=()),
        "does not say what data it was trained on": evaluate("fid", model, data=()),
        "share no noise": evaluate("compare", model, tmp_path),
    }
    for words, done in sentences.items():
        assert words in done.sentence, (words, done)


@pytest.fixture
def arrays_run(tmp_path: Path) -> Path:
    """A model that says it was trained on a file of arrays with classes."""
    digits = Digits(labels=True).open().train
    values = np.stack([digits[i][0].numpy() for i in range(300)])
    np.savez(tmp_path / "own.npz", x=values, y=digits.labels[:300])
    model = build_denoiser(MLP((1, 8, 8), width=16, depth=1), 0.85, "inner_product")
    model.noise = NoiseRange(0.02, 10.0)
    options = {"root": str(tmp_path / "own.npz"), "labels": True}
    config = {"data": {"source": {"class_path": "energydiff.data.Arrays", "init_args": options}}}
    energydiff.save_model(SavedModel(model, Normalization(0, 16), (), config), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "override",
    [
        ["--data.extractor", "classifier"],
        ["--data.extractor=classifier"],
        ["--data.source.held_out", 0.2],
        ["--data.reference", "train"],
        [],
    ],
)
def test_an_override_changes_only_what_it_names(evaluate, arrays_run: Path, override) -> None:
    """Not the data set: that is the run's, with its labels."""
    done = evaluate("fid", arrays_run, *override, data=())
    assert done.code == 0, done.err
    provenance = json.loads(written(done.out).read_text())["provenance"]
    assert provenance["data"] == f"arrays at {arrays_run.parent / 'own.npz'}, train part"
    assert provenance["extractor"] == "classifier"


def test_a_data_file_without_a_source_is_about_the_runs_own(
    evaluate, arrays_run: Path, tmp_path: Path
) -> None:
    part = tmp_path / "part.yaml"
    part.write_text("reference: held_out\n")
    done = evaluate("fid", arrays_run, data=("--data", part))
    assert done.code == 0, done.err
    found = json.loads(written(done.out).read_text())
    expected = f"arrays at {arrays_run.parent / 'own.npz'}, held_out part"
    assert found["provenance"]["data"] == expected
    assert found["floor"]["part"] == "training" and "training images" in done.out


def test_no_data_set_is_measured_that_nobody_named(evaluate, digits_model, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    part = tmp_path / "part.yaml"
    part.write_text("extractor: classifier\n")
    for model in (digits_model("a"), tmp_path / "images"):
        for data in (("--data.extractor", "classifier"), ("--data", part)):
            assert "no source is named" in evaluate("fid", model, data=data).sentence
    named = ("--data.source", "Digits", "--data.source.labels", "true")
    assert evaluate("fid", digits_model("a"), data=named).code == 0


def test_a_part_of_class_folders_has_all_classes(evaluate, tmp_path: Path) -> None:
    """The images of one class are far from the data, a shuffle of all is not."""
    digits = Digits(labels=True).open().train
    order = np.argsort(digits.labels[:400], kind="stable")
    for place, i in enumerate(order):
        raw, label = digits[int(i)]
        file = tmp_path / "classes" / str(label) / f"{place:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(
            digits.normalization.to_uint8(digits.normalization.encode(raw))[0].numpy()
        ).save(file)
        if place < 40:
            (tmp_path / "first").mkdir(exist_ok=True)
            shutil.copy(file, tmp_path / "first" / file.name)
    found = {}
    for name in ("classes", "first"):
        done = evaluate("fid", tmp_path / name)
        assert done.code == 0, done.err
        found[name] = json.loads(written(done.out).read_text())
    few, one = (found[name]["quality"]["frechet"] for name in ("classes", "first"))
    assert few < one / 3
    assert found["classes"]["provenance"]["order"].startswith("shuffled by the seed")
    again = json.loads(written(evaluate("fid", tmp_path / "classes").out).read_text())
    # To rounding: where an array lies in memory decides the order of sums on some CPUs.
    assert again["quality"] == pytest.approx(found["classes"]["quality"], rel=1e-9)
    assert again | {"quality": None} == found["classes"] | {"quality": None}
    other = json.loads(written(evaluate("fid", tmp_path / "classes", "--seed", 1).out).read_text())
    assert other["quality"] != found["classes"]["quality"]


def test_a_run_is_evaluated_from_another_folder_and_with_its_own_options(
    door, tiny_mlp: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative root is recorded as the place that it was; labels and on_error are kept."""
    monkeypatch.setattr(classifier, "SHOWN_IMAGES", 3_000)
    digits = Digits(labels=True).open().train
    for i in range(150):
        raw, label = digits[i]
        (tmp_path / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        pixels = np.repeat(raw.numpy()[0, :, :, None] * 15, 3, 2).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / str(label) / f"{i}.png")
    (tmp_path / "images" / "0" / "broken.png").write_bytes(b"nothing")
    root = os.path.relpath(tmp_path / "images", Path(__file__).parents[2])
    source = {"root": root, "labels": "true", "on_error": "skip", "max_skipped": 0.1}
    fit = ["fit", "--config", tiny_mlp, "--model.total_images", 64, "--finish.evaluations", 64]
    fit += ["--data.source", "Folder", "--data.flip", "false"]
    fit += [x for name, value in source.items() for x in (f"--data.source.{name}", value)]
    run = tmp_path / "run"
    trained = door(*fit, "--trainer.default_root_dir", run)
    assert trained.code == 0, trained.err
    config = energydiff.saving.open_model(run).config
    assert config["data"]["source"]["init_args"]["root"] == str((tmp_path / "images").resolve())
    done = door("evaluate", "fid", run, *FEW, "--store", store)
    assert done.code == 0, done.err
    provenance = json.loads(written(done.out).read_text())["provenance"]
    assert provenance["data"] == f"folder at {tmp_path / 'images'}, train part"


def test_a_comma_in_a_name_is_no_second_model(evaluate, digits_model) -> None:
    one, other = digits_model("lr=1,width=2"), digits_model("b", "unconstrained")
    done = evaluate("compare", one, other, "--curve", "[1]", "--controls", "false")
    assert done.code == 0, done.err
    assert json.loads(written(done.out).read_text())["a"]["runs"] == [str(one)]


@pytest.mark.slow
def test_two_ranks_draw_what_one_draws(process, digits_model, tmp_path: Path) -> None:
    """Several sets of samples, the same to rounding, each exactly once."""
    models = digits_model("a"), digits_model("b", "unconstrained")
    found = []
    for devices in (1, 2):
        done = process(
            *("evaluate", "compare", *models, "--data", "configs/data/digits.yaml", *FEW),
            *("--curve", "[1]", "--devices", devices, "--store", tmp_path / str(devices)),
        )
        assert done.code == 0, done.err
        assert done.out.count("Written to") == 1
        found.append(json.loads(written(done.out).read_text()))
    one, two = found
    assert two["provenance"] == one["provenance"]
    for arm in "ab":
        expected = np.array(one[arm]["block_frechet"])
        assert two[arm]["block_frechet"] == pytest.approx(expected, rel=1e-3)


def test_an_override_on_no_model_is_a_sentence(evaluate, tmp_path: Path) -> None:
    done = evaluate("fid", tmp_path / "nowhere", "--data.extractor", "classifier")
    assert f"{tmp_path / 'nowhere'} does not exist" in done.sentence
