"""Commands in running text, which no other test runs: each is parsed as it stands there, and every
option that a sentence names exists."""

import contextlib
import inspect
import io
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger

from energydiff import registry
from energydiff.cli import (
    complete,
    encode,
    evaluate,
    export,
    landscape,
    main,
    memorisation,
    sample,
    shards,
    training,
)
from energydiff.data import DataSpec, Subset
from energydiff.potentials import Network

ROOT = Path(__file__).parents[1]
PAGES = {
    p.name: p.read_text() for p in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Every door whose help lists options of its own.
DOORS = [
    *([name] for name in ("fit", "validate", "test", "sample", "export", "complete", "landscape")),
    ["memorisation"],
    ["distil"],
    ["check"],
    ["replay"],
    ["encode"],
    ["shards"],
    *(["complete", name] for name in ("fit", "validate", "test")),
    *(["evaluate", name] for name in ("fid", "compare", "report")),
]
# What their help leaves to a help of its own.
PARTS = [(["fit"], "trainer"), (["evaluate", "fid"], "data")]
# The classes that an option chooses among, whose arguments are options too.
CHOICES: dict[str, list[type]] = {
    "--source": [*registry.known(DataSpec).values()],  # type: ignore[type-abstract]
    "--data.source": [*registry.known(DataSpec).values()],  # type: ignore[type-abstract]
    "--data.subset": [Subset],
    "--model.backbone": [*registry.known(Network).values()],  # type: ignore[type-abstract]
    "--trainer.logger": [WandbLogger, MLFlowLogger],
}


def commands() -> Iterator[tuple[str, str]]:
    """(page, line) of every indented command."""
    for page, text in PAGES.items():
        found = re.findall(r"^ {4,}((?:energydiff|python) .*)$", FENCED.sub("", text), re.MULTILINE)
        yield from ((page, line) for line in found)


def mentions() -> Iterator[tuple[str, str]]:
    """(page, words) of every piece of code in a sentence that names an option."""
    for page, text in PAGES.items():
        for code in re.findall(r"`([^`]+)`", FENCED.sub("", text)):
            if re.match(r"--\w|(energydiff|python) .*--\w", words := " ".join(code.split())):
                yield page, words


def options(words: list[str]) -> list[str]:
    """Those named, without the placeholders of a reader's own."""
    return [re.sub(r"\.[A-Z]+$", "", word.partition("=")[0]) for word in words if word[:2] == "--"]


@cache
def told(*command: str) -> str:
    """What a command prints of itself, or what a benchmark does."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        if command[0].startswith("benchmarks."):
            with mock.patch.object(sys, "argv", [*command]):
                runpy.run_module(command[0], run_name="__main__")
        else:
            main(command)
    return said.getvalue()


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Doors that parse and do no more, in a folder with what the pages speak of."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    shutil.copy("configs/digits/energy_unet.yaml", "my.yaml")
    for name, page in (("mynet", "extend.md"), ("vae", "latents.md")):
        (code,) = re.findall(
            rf'"{name}\.py"\)\.write_text\(\'\'\'\n(.*?)\'\'\'\)', PAGES[page], re.S
        )
        code = re.sub(r"AutoencoderKL\.from_pretrained\(.*\)", "None", code)  # has no weights here
        Path(f"{name}.py").write_text(re.sub("from diffusers .*", "", code))
    monkeypatch.setattr(sys, "path", [*sys.path])
    for module, name in (
        *((evaluate, name) for name in ("fid", "compare", "report")),
        *((sample, "sample"), (export, "export"), (complete, "fill")),
        *((landscape, "landscape"), (memorisation, "memorisation"), (encode, "encode")),
        (shards, "shards"),
    ):
        monkeypatch.setattr(module, name, _parsed_only(getattr(module, name)))
    monkeypatch.setattr(evaluate, "with_own_data", lambda parser, arguments: [*arguments])
    monkeypatch.setattr(training.EnergyDiffCLI, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(training.EnergyDiffCLI, "go", lambda self: None)
    yield
    for name in ("mynet", "vae"):
        sys.modules.pop(name, None)


def _parsed_only(function: Callable[..., Any]) -> Callable[..., Any]:
    def stub(*_: Any, **__: Any) -> None: ...

    stub.__signature__, stub.__doc__ = inspect.signature(function), function.__doc__  # type: ignore[attr-defined]
    return stub


@pytest.mark.parametrize(("page", "line"), [*commands()], ids=[f"{p}: {c}" for p, c in commands()])
def test_an_indented_command_is_parsed(page: str, line: str, stubbed: None) -> None:
    program, *arguments = shlex.split(line, comments=True)
    if program == "energydiff":
        assert main(arguments) == 0
    else:
        help_text = told(arguments[1], "--help")
        assert all(option in help_text for option in options(arguments))


@pytest.mark.parametrize(("page", "words"), [*mentions()], ids=[f"{p}: {w}" for p, w in mentions()])
def test_an_option_in_a_sentence_exists(page: str, words: str) -> None:
    first, *rest = shlex.split(words)
    doors = DOORS if first.startswith("--") else [door for door in DOORS if door[0] == rest[0]]
    texts = [told(*door, "--help") for door in doors]
    texts += [told(*door, f"--{part}.help") for door, part in PARTS if door in doors]
    texts += [told(module, "--help") for module in set(re.findall(r"benchmarks\.\w+", PAGES[page]))]
    for option in options([first, *rest]):
        known = any(re.search(rf"{re.escape(option)}(?![\w.])", text) for text in texts)
        assert known or _belongs_to_a_class(option, PAGES[page]), option


def _belongs_to_a_class(option: str, page: str) -> bool:
    """Whether it is an argument of a class to choose there, of this package or of the page."""
    place, _, name = option.rpartition(".")
    classes = CHOICES.get(place, [])
    own = any(re.search(rf"\b{name}: ", code) for kind, code in FENCED.findall(page))
    return (bool(classes) and own) or any(name in inspect.signature(c).parameters for c in classes)
