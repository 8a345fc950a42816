"""energydiff first (it guards torchvision), then what chance decides, then processes."""

import energydiff  # noqa: F401

# isort: split
import multiprocessing
import os
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # the tensors are tiny: threads would only wait for one another
settings.register_profile("energydiff", deadline=None)
settings.load_profile("energydiff")

# Each process is forked from one that has done the imports, which take longer than most commands.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["energydiff.cli.complete", "energydiff.cli.evaluate"])
FORKED = Path(__file__).with_name("forked_python.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests start processes come first: the long ones must not be left to the end."""
    long = {item.path for item in items if "python" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Networks are initialised from torch's global generator."""
    torch.manual_seed(0)


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What it printed for a mistake of the user; empty unless that is one clean line."""
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        clean = len(errors) == 1 and "Traceback" not in self.out + self.err
        return errors[0] if clean and self.code == 2 else ""


@pytest.fixture(scope="session")
def finished() -> type[Finished]:
    return Finished


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Callable[..., Finished]:
    """``python *arguments`` in a folder, in a process of its own with one thread, for ``timeout``
    seconds at most; ``energydiff`` as the first argument is the installed command."""
    output = tmp_path_factory.mktemp("output")
    common = {"OMP_NUM_THREADS": "1", "ENERGYDIFF_CACHE": str(shared / "cache")}

    def run(*arguments: object, folder: Path, timeout: float = 600, **variables: str) -> Finished:
        names = {
            "arguments": [str(argument) for argument in arguments],
            "folder": folder,
            "variables": os.environ | common | variables,
            "out": output / "out.txt",
            "err": output / "err.txt",
        }
        process = FORKS.Process(target=runpy.run_path, args=(str(FORKED), names))
        process.start()
        process.join(timeout)
        late = process.exitcode is None
        if late:
            process.kill()
            process.join()
        out, err = ((output / name).read_text() for name in ("out.txt", "err.txt"))
        assert not late, f"not done after {timeout:g} s, having said: {err[-2000:]}"
        assert process.exitcode is not None
        return Finished(process.exitcode, out, err)

    return run
