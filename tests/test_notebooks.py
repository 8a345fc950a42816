"""The notebooks run: in the default suite with short trainings, slowly as they stand; what is
stored in them was printed by the cells as they are."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebooks extra is not installed")
pytest.importorskip("nbclient", reason="the notebooks extra is not installed")

from website.notebooks import notebook_page  # noqa: E402
from website.run_notebooks import run  # noqa: E402

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
SHORT = {"STEPS = 1_200": "STEPS = 30", "IMAGES = 40_000": "IMAGES = 640"}


def test_there_are_three() -> None:
    assert NAMES == ["first_energy", "memory_landscape", "your_images"]


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel finds the package of this checkout, and uses one thread."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_runs_with_a_short_training(path: Path, kernels: None) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for long, short in SHORT.items():
            cell.source = cell.source.replace(long, short)
    run(notebook)
    assert "certificate holds" in printed(notebook) or path.stem != "memory_landscape"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_holds_what_it_says(path: Path, kernels: None) -> None:
    notebook = nbformat.read(path, as_version=4)
    run(notebook)
    said = printed(notebook)
    assert "The certificate holds" in said
    if path.stem == "first_energy":
        assert all(abs(float(mean)) < 0.2 for mean in re.findall(r"mean error (\S+)", said))
        assert float(re.findall(r"([\d.]+)% of the samples", said)[0]) > 97
    if path.stem == "your_images":
        digit, inverted, noise = map(float, re.findall(r"E = +(\S+) nats", said))
        assert digit < inverted < noise


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_stored_notebook_was_run_and_is_small(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert "certificate holds" in printed(notebook)
    assert path.stat().st_size < 1_000_000
    assert not re.search(r"/(home|work|root|tmp|Users)/", path.read_text())
    page = notebook_page(path)
    pictures = [name for name in page if name.endswith(".png")]
    assert len(pictures) >= 2
    assert all(f"![]({name})" in page[f"{path.stem}.md"] for name in pictures)


def printed(notebook: nbformat.NotebookNode) -> str:
    """All that the cells printed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text", "") for output in outputs)
