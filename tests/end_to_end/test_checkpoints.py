"""Checkpoints: written whole, and refused in a sentence where they are none."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

import energydiff
from energydiff.errors import UserError
from energydiff.training.checkpoint import WholeCheckpointIO

BAD = {
    "empty": b"",
    "cut": None,  # the first half of a good one
    "text": b"not a checkpoint",
}


@pytest.fixture
def run(unet_run: Path, tmp_path: Path) -> Path:
    """A copy of a trained run, to be damaged."""
    return Path(shutil.copytree(unet_run, tmp_path / "run"))


def damage(file: Path, kind: str) -> None:
    good = file.read_bytes()
    content = BAD[kind]
    file.write_bytes(good[: len(good) // 2] if content is None else content)


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("command", ["fit", "validate", "test", "sample", "complete"])
def test_a_damaged_checkpoint_is_a_sentence(
    command: str, kind: str, run: Path, tiny_unet: Path, door
) -> None:
    file = run / "checkpoints" / "last.ckpt"
    damage(file, kind)
    before = file.read_bytes()
    if command in ("sample", "complete"):
        done = door(command, run)
    else:
        done = door(command, "--config", tiny_unet, "--trainer.default_root_dir", run)
    assert str(file) in done.sentence and "restore it" in done.sentence
    assert file.read_bytes() == before


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {}},
        {"state_dict": {}, "energydiff": "0.1"},
        {"state_dict": {}, "energydiff": {"model": {}}},
        [1, 2],
    ],
    ids=["dict", "no mapping", "no configuration", "list"],
)
def test_a_checkpoint_of_another_program_is_a_sentence(
    command: str, content: object, run: Path, tiny_unet: Path, door
) -> None:
    file = run / "checkpoints" / "last.ckpt"
    torch.save(content, file)
    done = door(command, "--config", tiny_unet, "--trainer.default_root_dir", run)
    assert done.sentence == f"error: {file} is not a checkpoint of this package."


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("export", "is an export"),
        ("export/model.safetensors", "is an export"),
        (".", "is a folder"),
        ("none.ckpt", "does not exist"),
    ],
)
def test_what_is_no_checkpoint_is_called_what_it_is(
    given: str, said: str, run: Path, tiny_unet: Path, door
) -> None:
    options = ("--config", tiny_unet, "--trainer.default_root_dir", run)
    done = door("fit", *options, "--ckpt_path", run / given)
    assert f"{run / given} {said}" in done.sentence


def test_weights_without_the_state_of_their_training_are_not_gone_on_from(
    run: Path, tiny_unet: Path, door
) -> None:
    file = run / "checkpoints" / "last.ckpt"
    saved = torch.load(file, weights_only=True)
    del saved["optimizer_states"]
    torch.save(saved, file)
    options = ["--config", tiny_unet, "--trainer.default_root_dir", run]
    assert "without the state of their training" in door("fit", *options).sentence
    assert door("validate", *options).code == 0


@pytest.mark.parametrize("command", ["fit", "validate"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda saved: saved["energydiff"].update(format="energydiff-model-0"), "has the format"),
        (lambda saved: saved["state_dict"].popitem(), "1 tensors missing, unknown"),
        (lambda saved: saved["state_dict"].update(new=torch.zeros(1)), "first new"),
    ],
    ids=["format", "missing", "unknown"],
)
def test_a_checkpoint_of_another_version_is_called_that(
    change: Callable[[dict], object], said: str, command: str, run: Path, tiny_unet: Path, door
) -> None:
    """Where its settings are the same."""
    file = run / "checkpoints" / "last.ckpt"
    saved = torch.load(file, weights_only=True)
    change(saved)
    saved["global_step"] -= 1  # there is something left to train
    torch.save(saved, file)
    done = door(command, "--config", tiny_unet, "--trainer.default_root_dir", run)
    assert str(file) in done.sentence and said in done.sentence
    assert "version" in done.sentence


@pytest.mark.parametrize(("name", "known"), [("num_classes", True), ("channels", False)])
def test_a_network_that_has_come_to_take_an_argument_is_the_same_at_its_default(
    name: str, known: bool, run: Path, tiny_unet: Path, door
) -> None:
    """And another where it is not at that."""
    file = run / "checkpoints" / "last.ckpt"
    saved = torch.load(file, weights_only=True)
    del saved["energydiff"]["model"]["backbone"][name]
    torch.save(saved, file)
    done = door("validate", "--config", tiny_unet, "--trainer.default_root_dir", run)
    assert (done.code == 0) == known
    assert known or "another model than the one configured (they differ in backbone)" in done.err


def test_training_writes_no_checkpoint_by_way_of_the_temporary_folder(
    tiny_mlp: Path, tmp_path: Path, door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That may be another file system, where a move is a copy over the only checkpoint."""
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    saved: list[Path] = []
    save = WholeCheckpointIO.save_checkpoint

    def spy(self: WholeCheckpointIO, checkpoint: dict, path: str, **options: object) -> None:
        save(self, checkpoint, path, **options)
        saved.append(Path(path))

    monkeypatch.setattr(WholeCheckpointIO, "save_checkpoint", spy)
    done = door("fit", "--config", tiny_mlp, "--trainer.default_root_dir", tmp_path / "run")
    assert done.code == 0, done.err
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert saved and set(saved) == {last}
    assert [file.name for file in last.parent.iterdir()] == ["last.ckpt"]
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("fails", [False, True])
def test_checkpoints_may_be_written_while_training_goes_on(
    fails: bool, tiny_mlp: Path, tmp_path: Path, door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Lightning's plugin, each whole or not at all, from the weights of its own step."""
    quick = ["--monitor.every_images", 0, "--val_every_images", 0, "--finish.evaluations", 0]
    quick += ["--model.total_images", 320, "--checkpoint_every_images", 32]
    asked = ["--trainer.plugins", "lightning.pytorch.plugins.AsyncCheckpointIO"]
    save, written = torch.save, []

    def slowly(content: dict, stream: BinaryIO) -> None:
        time.sleep(0.05)
        written.append((threading.current_thread(), content["global_step"]))
        if fails:
            raise OSError(28, "No space left on device")
        save(content, stream)

    monkeypatch.setattr(torch, "save", slowly)
    run = ["--trainer.default_root_dir", tmp_path / "run"]
    done = door("fit", "--config", tiny_mlp, *quick, *run, *asked)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert threading.main_thread() not in {thread for thread, _ in written}
    if fails:
        assert f"{last} cannot be written (No space left on device)" in done.sentence
        assert not last.exists()
        return
    assert [step for _, step in written] == [*range(1, 11), 10]
    monkeypatch.setattr(torch, "save", save)
    straight = tmp_path / "straight" / "checkpoints" / "last.ckpt"
    run = ["--trainer.default_root_dir", tmp_path / "straight"]
    assert door("fit", "--config", tiny_mlp, *quick, *run).code == 0
    one, other = (torch.load(file, weights_only=True) for file in (last, straight))
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(one[part][name], other[part][name]) for name in other[part])


def test_a_save_that_fails_half_way_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"step": 1}, file)

    def full(content: object, target: BinaryIO) -> None:
        target.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"last\.ckpt cannot be written \(no space"):
        WholeCheckpointIO().save_checkpoint({"step": 2}, file)
    assert torch.load(file, weights_only=True) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_numbered_checkpoints_stay_and_are_models_to_go_on_from(
    tiny_mlp: Path, tmp_path: Path, door
) -> None:
    run = tmp_path / "run"
    options = ["--config", tiny_mlp, "--trainer.default_root_dir", run, "--finish.evaluations", 0]
    options += ["--model.total_images", 160, "--monitor.every_images", 0]
    done = door("fit", *options, "--keep_every_images", 64, "--checkpoint_every_images", 0)
    assert done.code == 0, done.err
    names = ["000000064.ckpt", "000000128.ckpt", "last.ckpt"]
    assert sorted(file.name for file in (run / "checkpoints").iterdir()) == names
    first = run / "checkpoints" / names[0]
    out = tmp_path / "out"
    assert door("sample", first, "--num_samples", 1, "--steps", 2, "--out", out).code == 0
    whole = energydiff.load(run).state_dict()
    done = door("fit", *options, "--ckpt_path", first)
    assert done.code == 0 and done.out.startswith("image 96 of 160"), done.err
    assert "warning" not in done.err
    for name, tensor in energydiff.load(run).state_dict().items():
        assert torch.equal(tensor, whole[name])


def test_the_best_checkpoints_stay_and_worse_ones_go(
    tiny_mlp: Path, tmp_path: Path, door, metrics
) -> None:
    run = tmp_path / "run"
    options = ["--config", tiny_mlp, "--trainer.default_root_dir", run, "--finish.evaluations", 0]
    options += ["--monitor.every_images", 0, "--val_every_images", 32, "--keep_best", 2]
    assert door("fit", *options, "--model.total_images", 160).code == 0
    done = door("fit", *options, "--model.total_images", 320)  # which ones were best is remembered
    assert done.code == 0, done.err
    losses = metrics(run)["val/loss"]
    assert len(losses) == 10
    best = sorted(range(10), key=losses.__getitem__)[:2]
    names = sorted(f"best_{32 * (place + 1):09d}.ckpt" for place in best)
    assert sorted(file.name for file in (run / "checkpoints").iterdir()) == [*names, "last.ckpt"]
    assert energydiff.load(run / "checkpoints" / names[0]).num_classes == 0


def test_the_best_by_no_measure_are_refused(tiny_mlp: Path, tmp_path: Path, door) -> None:
    options = ["--config", tiny_mlp, "--trainer.default_root_dir", tmp_path, "--keep_best", 2]
    assert "set val_every_images" in door("fit", *options, "--val_every_images", 0).sentence
