"""Files from a stranger: what they name is not run, and what they claim costs nothing."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import energydiff
from energydiff.saving import CHECKPOINT_KEY, open_model, read_description

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 25)
)
REFUSALS = {
    "os.system": "is os.system, which is no DataSpec",
    "subprocess.Popen": "is subprocess.Popen, which is no DataSpec",
    "leaving_a_mark.Net": "loading a file never runs code on its own",
}
Poisoned = Callable[[str], Path]


@pytest.fixture
def poisoned(export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Poisoned:
    """An export whose recorded data source is another class; the module lies on the path."""
    mark = tmp_path / "mark"
    (tmp_path / "leaving_a_mark.py").write_text(f"open({str(mark)!r}, 'w')\nclass Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str) -> Path:
        folder = export()
        description = read_description(folder)
        asked = {"command": f"touch {mark}", "args": f"touch {mark}", "shell": True}
        source = {"class_path": name, "init_args": asked}
        description["config"] = {"data": {"source": source}}
        (folder / "model.yaml").write_text(yaml.safe_dump(description))
        return folder

    return make


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("options", [(), ("--data.small_reference", "true")])
@pytest.mark.parametrize("kind", ["export", "checkpoint"])
def test_a_recorded_configuration_makes_no_other_class(
    kind: str, options: tuple[str, ...], name: str, poisoned: Poisoned, door, tmp_path: Path
) -> None:
    """Neither imported nor called."""
    model = poisoned(name)
    if kind == "checkpoint":
        state = {f"denoiser.{n}": t for n, t in open_model(model).denoiser.state_dict().items()}
        content = {"state_dict": state, CHECKPOINT_KEY: read_description(model)}
        model = tmp_path / "last.ckpt"
        torch.save(content, model)
    done = door("evaluate", "fid", model, "-n", 100, *options)
    assert REFUSALS[name] in done.sentence, done.err
    assert not (tmp_path / "mark").exists() and "leaving_a_mark" not in sys.modules


@pytest.mark.parametrize("what", ["--config", "--data", "model.yaml", "landscape"])
def test_a_yaml_bomb_is_refused_wherever_it_lies(
    what: str, export, process, tmp_path: Path
) -> None:
    model, bomb = export(), tmp_path / "bomb.yaml"
    bomb.write_text(BOMB)
    if what == "model.yaml":
        (model / what).write_text((model / what).read_text() + BOMB)
    arguments: dict[str, tuple[Any, ...]] = {
        "--config": ("fit", "--config", bomb),
        "--data": ("evaluate", "fid", model, "--data", bomb),
        "model.yaml": ("sample", model, "--out", tmp_path / "out"),
        "landscape": ("landscape", "--config", bomb),
    }
    assert "repeats values by YAML aliases" in process(*arguments[what], timeout=120).sentence


def test_a_model_with_a_bomb_in_it_is_not_loaded(export) -> None:
    """In a place that whoever opens it would walk through."""
    folder = export()
    text = (folder / "model.yaml").read_text().replace("classes: []", "classes: *a24")
    (folder / "model.yaml").write_text(BOMB + text)
    with pytest.raises(energydiff.errors.UserError, match="repeats values by YAML aliases"):
        energydiff.load(folder)
