"""Runs the notebooks and stores what their cells print and draw.

``make notebooks`` or ``python -m website.run_notebooks``. What they say of the machine, on standard
error, is not stored.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient

from energydiff.progress import with_progress

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def main() -> None:
    """Every notebook in place, some minutes on one core."""
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    for path in with_progress(paths, len(paths), "Running notebooks"):
        notebook = nbformat.read(path, as_version=4)
        run(notebook)
        nbformat.write(notebook, path)


def run(notebook: Any) -> None:
    """Runs all cells in a folder of their own, in place.

    Raises:
        CellExecutionError: a cell raised; the message is its traceback.
    """
    with TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=1_200,
            startup_timeout=600,  # a busy machine imports slowly
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]


if __name__ == "__main__":
    main()
