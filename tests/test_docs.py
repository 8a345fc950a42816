"""The documentation's commands and snippets run, in a copy of the repository, on small settings."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Training commands are checked as commands, not for their result.
SMALL = [
    "--model.total_images=128",
    "--monitor.every_images=128",
    "--monitor.samples=4",
    "--monitor.steps=2",
    "--monitor.calibration_evaluations=64",
    "--finish.evaluations=64",
    "--val_every_images=128",
]

SMALL_COMPLETION = ["--model.total_images=128", "--val_every_images=128"]

SMALL_IMAGES = [
    "--data.source.image_size=16",
    "--data.batch_size=16",
    "--data.num_workers=0",
    "--model.backbone.init_args.channels=8",
    "--model.backbone.init_args.attention_resolutions=[4]",
]


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, code) of every fenced block in one language."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(page.name, code) for page in PAGES for code in fence.findall(page.read_text())]


COMMANDS = [
    (page, line)
    for page, code in blocks("bash")
    for line in code.splitlines()
    if line.startswith(("energydiff ", "python "))
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git would hand to a stranger, and what the first snippets leave behind."""
    target = tmp_path_factory.mktemp("clone")
    for name in ("energydiff", "benchmarks", "configs", "pretrained"):
        shutil.copytree(ROOT / name, target / name)
    for script in ROOT.glob("*.py"):
        shutil.copy(script, target)
    # The reader's own images: here scikit-learn's digits, enlarged, a folder per class.
    for i, (pixels, label) in enumerate(zip(*load_digits(return_X_y=True), strict=True)):
        if i < 48:
            image = Image.fromarray((pixels.reshape(8, 8) * 15.9).astype(np.uint8))
            file = target / "path/to/images" / str(label) / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image.resize((80, 64)).save(file)
    for page, code in blocks("python"):
        run([sys.executable, "-c", code], target, page)
    return target


def run(command: list[str], folder: Path, page: str) -> None:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(folder),
        "ENERGYDIFF_CACHE": str(folder / "cache"),
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, f"{page}: {shlex.join(command)}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{p}: {c}" for p, c in COMMANDS])
def test_documented_command_runs(page: str, line: str, copy: Path) -> None:
    """What a page tells a user to type works as it stands there."""
    program, *arguments = shlex.split(line, comments=True)
    command = [sys.executable, *arguments]
    if program == "energydiff":
        command[1:1] = ["-m", "energydiff"]
    if line.startswith("energydiff fit"):
        command += SMALL
    if line.startswith("energydiff complete fit"):
        command += SMALL_COMPLETION
    if "configs/folder" in line:
        command += SMALL_IMAGES
    run(command, copy, page)


def test_links_lead_somewhere() -> None:
    """Every relative link of every page names a file that exists."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
