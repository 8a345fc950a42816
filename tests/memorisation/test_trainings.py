"""Trainings in processes of their own: one at a time in a folder, and what fails is named."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from energydiff.errors import UserError
from energydiff.memorisation import trainings
from energydiff.memorisation.trainings import train_missing

TRAIN = """
import pathlib, sys, time
run = pathlib.Path(sys.argv[-1])
assert not (run / "busy").exists(), "two at once"
(run / "export").mkdir(parents=True, exist_ok=True)
(run / "busy").touch()
time.sleep(0.5)
(run / "busy").unlink()
(run / "export/model.yaml").touch()
with (run.parent / "trained").open("a") as log:
    print(run.name, file=log)
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of ``energydiff fit``, what takes half a second and would see a second at work."""
    run = subprocess.run

    def instead(command: list[str], **options: Any) -> Any:
        return run([sys.executable, "-c", TRAIN, *command[3:]], **options)

    monkeypatch.setattr(trainings.subprocess, "run", instead)


@pytest.mark.usefixtures("stand_in")
def test_two_studies_share_their_trainings(tmp_path: Path) -> None:
    runs: dict[Path, list[str]] = {tmp_path / name: [] for name in "abcd"}
    studies = [threading.Thread(target=train_missing, args=(runs, 2)) for _ in range(2)]
    for study in studies:
        study.start()
    for study in studies:
        study.join()
    assert sorted((tmp_path / "trained").read_text().split()) == ["a", "b", "c", "d"]


@pytest.mark.usefixtures("stand_in")
def test_a_training_that_outlives_its_study_is_waited_for(tmp_path: Path) -> None:
    """Killed with a training under way, which holds the lock that it inherited."""
    with trainings._held(tmp_path / "a.lock") as held:
        orphan = subprocess.Popen([sys.executable, "-c", TRAIN, str(tmp_path / "a")], pass_fds=held)
    while not (tmp_path / "a/busy").exists():
        time.sleep(0.01)
    train_missing({tmp_path / "a": []}, 1)
    assert orphan.wait() == 0 and (tmp_path / "trained").read_text().split() == ["a"]


def test_a_training_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training .*/a failed \(.*none\.yaml.*see .*a\.log"):
        train_missing({tmp_path / "a": ["--config", "none.yaml"]}, 1)
