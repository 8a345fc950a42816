"""Files that would run something. None may: the mark they leave is looked for."""

import pickle
import sys
from pathlib import Path

import pytest
import torch

import energydiff
from energydiff.errors import UserError
from energydiff.saving import CHECKPOINT_KEY


class Payload:
    """Pickles as a call that makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.mkdir, (self.mark,)


def test_the_payload_is_live(tmp_path: Path) -> None:
    """Otherwise the next tests could not fail."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("place", ["beside", "description", "weights", "plain pickle"])
def test_a_checkpoint_runs_no_code(place: str, save, tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "last.ckpt"
    content = torch.load(save.checkpoint(file), weights_only=True)
    if place == "beside":
        content["callbacks"] = Payload(mark)
    elif place == "description":
        content[CHECKPOINT_KEY]["config"] = Payload(mark)
    else:
        content["state_dict"]["denoiser.x"] = Payload(mark)
    if place == "plain pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file)
    with pytest.raises(UserError, match="plain tensors only"):
        energydiff.load(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir ['{mark}']",
        "!!python/object/new:pathlib.Path.mkdir ['{mark}']",
        "!!python/name:os.mkdir",
    ],
)
def test_an_export_runs_no_code(tag: str, save, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    file = save.export(tmp_path / "export") / "model.yaml"
    file.write_text(file.read_text() + f"\nextra: {tag.format(mark=mark)}\n")
    with pytest.raises(UserError, match="not plain YAML"):
        energydiff.load(file.parent)
    assert not mark.exists()


NO_NETWORK = ["os.system", "subprocess.Popen", "builtins.exec", "torch.load", "torch.nn.Linear"]


@pytest.mark.parametrize("place", ["model", "network", "inside"])
@pytest.mark.parametrize("name", NO_NETWORK)
def test_an_export_makes_no_class_of_another_kind(
    name: str, place: str, save, tmp_path: Path
) -> None:
    """What it names has been imported, and could be called with what the file gives it."""
    folder = save.export(tmp_path / "export")
    mark = tmp_path / "mark"
    described = {"class": name, "args": f"touch {mark}", "command": f"touch {mark}", "shell": True}

    def change(description: dict) -> None:
        if place == "model":
            description["model"] = described
        elif place == "network":
            description["model"]["backbone"] = described
        else:
            description["model"]["backbone"]["width"] = described

    with pytest.raises(UserError, match=rf"is {name}, which is no \w+ that can be imported"):
        energydiff.load(save.edit(folder, change))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["leaving_a_mark", "leaving_a_mark.Net"])
def test_an_export_imports_nothing(
    name: str, save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that lies on the path, and would leave a mark when it is imported."""
    mark = tmp_path / "mark"
    (tmp_path / "leaving_a_mark.py").write_text(f"open({str(mark)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = save.export(tmp_path / "export")
    save.edit(folder, lambda d: d["model"]["backbone"].update({"class": f"{name}.Net"}))
    with pytest.raises(UserError, match=f"import it first, or add --import {name}"):
        energydiff.load(folder)
    assert not mark.exists() and "leaving_a_mark" not in sys.modules
