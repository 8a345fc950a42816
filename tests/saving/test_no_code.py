"""Files that would run something. None may: the mark they leave is looked for."""

import pickle
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
