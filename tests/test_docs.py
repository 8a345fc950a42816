"""The documentation's commands and snippets run, in a copy of the repository, on small settings."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from energydiff import registry
from energydiff.sampling import Guarded, Sampler
from energydiff.sampling.choose import _options

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Training commands are checked as commands, not for their result.
SMALL = [
    "--model.total_images=128",
    "--monitor.every_images=128",
    "--monitor.samples=4",
    "--monitor.steps=2",
    "--monitor.probe_images=8",
    "--monitor.curvature_states=0",
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
    "--model.backbone.init_args.multipliers=[1,2]",
    "--model.backbone.init_args.blocks=1",
    "--model.backbone.init_args.attention_resolutions=[4]",
]

# A quality is measured in features that were learned in fewer passes.
QUICK = "from energydiff.evaluation import classifier; classifier.SHOWN_IMAGES = 3_000\n"


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
def run(python, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Runs in a folder with the files that git would hand to a stranger, and with what the pages'
    snippets leave behind."""
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

    def run(page: str, *arguments: str) -> None:
        done = python(*arguments, folder=target, PYTHONPATH=str(target))
        told = f"{page}: {shlex.join(arguments)}\n{done.out}\n{done.err}"
        assert done.code == 0, told

    by_page: dict[str, str] = {}  # a reader types one block after the other
    for page, code in blocks("python"):
        by_page[page] = f"{by_page.get(page, QUICK)}{code}\n"
    for page, code in by_page.items():
        run(page, "-c", code)
    return run


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{p}: {c}" for p, c in COMMANDS])
def test_documented_command_runs(page: str, line: str, run: Callable[..., None]) -> None:
    """What a page tells a user to type works as it stands there."""
    program, *arguments = shlex.split(line, comments=True)
    command = list(arguments)
    if line.startswith("energydiff fit"):
        command += SMALL
    if line.startswith("energydiff sample"):
        command += ["--num_samples=4"]
    if "--sampler hmc" in line:
        command += ["--sampler_options.updates=2"]
    if "benchmarks.retrieval" in line:
        command += ["--steps=3"]
    if line.startswith("energydiff evaluate fid"):
        command += ["--steps=4"]
    if line.startswith("energydiff complete fit"):
        command += SMALL_COMPLETION
    if "configs/folder" in line:
        command += SMALL_IMAGES
    if program == "energydiff":
        command = ["-c", f"{QUICK}from energydiff.cli import main; exit(main({command}))"]
    run(page, *command)


def test_links_lead_somewhere() -> None:
    """Every relative link of every page names a file that exists."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_options_of_every_sampler_are_in_the_table() -> None:
    """Those that the class takes and no others; "the same" are those of the row above."""
    page = (ROOT / "docs/sample.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `\w+` \|(?:[^|]*\|){3}([^|]*)\|", page, re.MULTILINE)
    told, names = {}, set()
    for name, cell in rows:
        found = set(re.findall(r"`(\w+)`", cell))
        names = names | found if "the same" in cell else found
        told[name] = names
    known = registry.known(Sampler).values()  # type: ignore[type-abstract]
    assert told == {cls.name: set(_options(cls)) for cls in known if cls is not Guarded}
