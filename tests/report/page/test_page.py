"""The page: what it holds, in which order, and that it needs nothing else."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from energydiff.data import Folder, Normalization
from energydiff.denoisers import build_denoiser
from energydiff.energies import GaussianMixture, NoiseRange
from energydiff.errors import UserError
from energydiff.evaluation import OpenedModel
from energydiff.evaluation.data import EvaluationData
from energydiff.evaluation.records import Comparison, Interval
from energydiff.potentials import EnergyUNet
from energydiff.report.page import PageModel, page_model, write_page
from energydiff.saving import LAST_CHECKPOINT, SavedModel, save_model


class Reader(HTMLParser):
    """What there is in a page: elements with their attributes, and the rows of tables."""

    VOID = frozenset({"meta", "img", "input", "br", "link"})

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.headings: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page.read_text())
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self._open or "style" in self._open:
            return
        self.text += data.replace("\N{NO-BREAK SPACE}", " ")
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] += data
        if self._open[-1:] == ["h2"]:
            self.headings.append(data)

    def row(self, label: str) -> list[str]:
        return next(row[1:] for row in self.rows if row and row[0] == label)


def written(models: list[PageModel], comparison: Comparison | None, out: Path) -> Reader:
    write_page(models, comparison, {}, out)
    return Reader(out)


def test_sections_come_in_order(page: Path) -> None:
    assert Reader(page).headings == [
        "What was trained",
        "Samples",
        "The Lyapunov function along sampling",
        "Certificate",
        "Quality",
        "Cost",
        "Training",
        "Landscape",
        "Likelihood, symmetry and copies",
    ]


def test_what_the_comparison_measured_is_there(page: Path) -> None:
    reader = Reader(page)
    assert "by Fréchet distance (A − B = −0.81, 95 % interval −1.14 to −0.48" in reader.text
    assert reader.row("Fréchet distance ↓") == ["8.24", "8.24", "−0.81", "−1.14 to −0.48", "better"]
    assert reader.row("KID ↓")[2:] == ["−0.00020", "−0.00050 to 0.00010", "not separable"]
    assert reader.row("precision ↑")[:2] == ["0.812", "0.812"]
    assert not any("Inception Score" in row[0] for row in reader.rows if row)
    assert reader.row("forward passes they amount to") == ["75.1", "37.0"]
    assert reader.row("as many forward passes") == ["8.24", "8.66"]
    assert reader.row("as many seconds") == ["8.24", "outside its curve"]
    assert reader.row("bits/dim of held-out images") == ["1.83", "–"]
    assert reader.row("asymmetry of the denoiser's Jacobian") == ["1.7·10⁻⁷", "1.7·10⁻⁷"]
    assert reader.row("A degraded (blur) against A")[-1] == "yes"
    assert reader.row("SHA-256 of its weights") == ["ab" * 32]
    assert reader.row("reference images") == ["1,499"]


def test_what_was_trained_is_there(page: Path) -> None:
    reader = Reader(page)
    assert [row[1] for row in reader.rows if row and row[0] == "images seen"] == [
        "32",
        "1,000 by the configuration",
    ]
    assert reader.row("EMA") == ["half-life 20,000 images"]
    assert reader.row("parametrization") == ["inner_product"]
    assert "baseline: no metrics of the training were kept." in reader.text
    assert "has no energy, so there is nothing to certify" in reader.text


def test_a_setting_that_is_empty_is_none(tmp_path: Path) -> None:
    denoiser = build_denoiser(EnergyUNet((1, 6, 6), 4, (1, 2), 1, ()), 0.5, "scalar")
    denoiser.noise = NoiseRange(0.02, 10.0)
    save_model(SavedModel(denoiser, Normalization(0, 16)), tmp_path / "unet")
    model = page_model(OpenedModel.at(tmp_path / "unet"), count=2)
    settings = written([model], None, tmp_path / "report.html").row("settings")[0]
    assert "multipliers 1, 2;" in settings and "periods none" in settings


def test_a_failed_control_takes_the_verdict_back(
    models: list[PageModel], comparison: Comparison, tmp_path: Path
) -> None:
    assert comparison.controls is not None
    controls = replace(comparison.controls, degraded=Interval(0.1, -1, 1))
    reader = written(models, replace(comparison, controls=controls), tmp_path / "page.html")
    assert "but a control failed, so do not lean on it" in reader.text
    assert "(blur) was not seen" in reader.text


def test_v_is_defined_where_it_is_drawn(page: Path) -> None:
    reader = Reader(page)
    assert "V(x, σ) = σ² [E(x, σ) − (d/2) log 2πσ²], where E is the learned energy" in reader.text
    assert reader.text.index("(d/2) log 2πσ²") < reader.text.index("V of every sample")


def test_folders_go_by_their_names_and_no_path_of_this_machine_is_sent(
    models: list[PageModel], comparison: Comparison, tmp_path: Path
) -> None:
    """Not in a table, nor in the data that the figures are drawn from."""
    root = Path(models[0].path).parent / "my icons, all"
    source = {"class_path": "energydiff.data.Folder", "init_args": {"root": str(root)}}
    config = models[0].model.config | {"data": {"source": source}}
    saved = replace(models[0].model, config=config)
    run, export = (Path(model.path) for model in models)
    first = replace(models[0], model=saved, path=str(run / LAST_CHECKPOINT))
    described = EvaluationData(source=Folder(root)).describe()
    measured = replace(
        comparison,
        a=replace(comparison.a, runs=[first.path]),
        provenance=replace(comparison.provenance, data=described),
    )
    out = tmp_path / "page.html"
    reader = written([first, models[1]], measured, out)
    assert str(root) in described
    assert not [folder for folder in (root, run, export) if str(folder.parent) in out.read_text()]
    assert reader.row("data set") == ["Folder in my icons, all"]
    assert reader.row("data") == ["folder at my icons, all, train part"]
    names = "run/checkpoints/last.ckpt", "export"
    assert [row[1] for row in reader.rows if row and row[0] == "folder"] == list(names)
    for letter, name in zip("AB", names, strict=True):
        assert reader.row(f"{letter}, {name}") == ["8.10", "8.40"]


def test_only_the_published_network_makes_an_fid(
    models: list[PageModel], comparison: Comparison, tmp_path: Path
) -> None:
    for name, digest in (("FID", "6726825d" + 56 * "0"), ("Fréchet distance", 64 * "0")):
        provenance = replace(
            comparison.provenance, extractor="inception-v3-compat", extractor_hash=digest
        )
        reader = written(models, replace(comparison, provenance=provenance), tmp_path / "page.html")
        assert reader.row(f"{name} ↓")[0] == "8.24"


def test_what_is_missing_is_said(models: list[PageModel], tmp_path: Path) -> None:
    reader = written([replace(models[1], metrics={})], None, tmp_path / "page.html")
    for sentence in (
        "No V was recorded",
        "Quality was not compared.",
        "Cost was not measured.",
        "no metrics of the training were kept",
        "There are no pictures",
        "were not measured",
    ):
        assert sentence in reader.text
    assert not [a for _, a in reader.elements if "plot" in (a.get("class") or "")]


def test_samples_that_are_no_images(tmp_path: Path) -> None:
    energy = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 0.1)
    energy.noise = NoiseRange(0.02, 80.0)
    save_model(SavedModel(energy, Normalization(0, 1)), tmp_path / "export")
    model = page_model(OpenedModel.at(tmp_path / "export"), count=2)
    reader = written([model], None, tmp_path / "page.html")
    assert "The samples are not images" in reader.text
    assert [a["id"] for _, a in reader.elements if a.get("id") == "traces-figure-0"]


def test_names_are_text_and_not_markup(page: Path) -> None:
    """A run may be called anything: it shows as it is, and no element comes of it."""
    reader = Reader(page)
    assert "<script>alert(1)</script>" in reader.text
    assert len([tag for tag, _ in reader.elements if tag == "script"]) == 3
    assert "<script>alert" not in page.read_text()


def test_nothing_is_fetched(page: Path) -> None:
    reader = Reader(page)
    linked = [a[k] for _, a in reader.elements for k in ("src", "href", "srcset") if a.get(k)]
    assert linked
    assert all((value or "").startswith("data:image/png;base64,") for value in linked)
    style = re.findall(r"<style>(.*?)</style>", page.read_text(), re.DOTALL)
    assert not re.search(r"https?:|@import", "".join(style))
    policy = next(a["content"] for tag, a in reader.elements if "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none'")
    assert not re.search(r"\*|http|'self'", policy)
    assert page.stat().st_size < 8_000_000


def test_images_and_tables_can_be_read_aloud(page: Path) -> None:
    elements = Reader(page).elements
    images = [a for tag, a in elements if tag == "img"]
    assert all("alt" in a for a in images)
    assert {"sample 4 of baseline", "Basins"} <= {a["alt"] for a in images}
    tables = [tag for tag, _ in elements if tag == "table"]
    assert len(tables) == len([tag for tag, _ in elements if tag == "caption"])
    assert all(a.get("scope") in ("row", "col") for tag, a in elements if tag == "th")


def test_a_page_that_fails_leaves_the_old_one(models: list[PageModel], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("old")
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(UserError, match=r"broken\.png"):
        write_page(models, None, {"Broken": tmp_path / "broken.png"}, out)
    assert out.read_text() == "old"
    write_page(models, None, {}, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.png", "report.html"]


def test_a_full_disk_leaves_the_old_page(
    models: list[PageModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report.html"
    out.write_text("old")

    def full(file: Path, target: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match="no space"):
        write_page(models, None, {}, out)
    assert out.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_models_of_different_shapes_are_refused(models: list[PageModel], tmp_path: Path) -> None:
    other = replace(models[1], samples=models[1].samples[:3])
    with pytest.raises(UserError, match="one shape"):
        write_page([models[0], other], None, {}, tmp_path / "page.html")
    with pytest.raises(UserError, match="at least one"):
        write_page([], None, {}, tmp_path / "page.html")


def test_trajectories_end_at_the_sample(models: list[PageModel]) -> None:
    for model in models:
        torch.testing.assert_close(model.trajectories[-1], model.samples)
        assert len(model.trajectories) == len(model.sigmas) == 19
