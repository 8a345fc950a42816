"""What a run that goes on takes anew and what it refuses, by the table in docs/train.md."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import energydiff
from energydiff.cli.training import EnergyDiffCLI
from energydiff.random import RULE
from energydiff.saving import CHECKPOINT_KEY, LAST_CHECKPOINT
from energydiff.training.resume import FREE, RECORDED

ROOT = Path(__file__).parents[2]
IMAGES = 36


def images(count: int = IMAGES, largest: float = 3.0) -> np.ndarray:
    values = np.random.default_rng(0).uniform(-1, 1, (count, 1, 4, 4)).astype(np.float32)
    values[-1, 0, 0, 0] = largest
    return values


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "images.npy"
    np.save(file, images())
    return file


@pytest.fixture(scope="module")
def trained(process, tiny_mlp: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step of 32 images, at the end of a cosine schedule."""
    run = tmp_path_factory.mktemp("rules") / "run"
    done = process("fit", *options(tiny_mlp, data, run))
    assert done.code == 0, done.err
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def options(config: Path, data: Path, run: Path) -> list[object]:
    source = ["--data.source", "Arrays", "--data.source.root", data, "--data.source.held_out", 0.2]
    quick = ["--monitor.every_images", 0, "--val_every_images", 0, "--finish.evaluations", 0]
    return ["--config", config, *source, *quick, "--trainer.default_root_dir", run]


def checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / LAST_CHECKPOINT, weights_only=True)


NEW = {
    "model.total_images": 96,
    "model.learning_rate": 0.25,
    "model.betas": [0.5, 0.75],
    "model.weight_decay": 0.125,
    "model.schedule": "constant",
    "model.warmup_images": 8,
    "ema.halflife_images": 10,
    "trainer.gradient_clip_val": 0.5,
    "trainer.precision": "bf16-mixed",
}


def test_what_moves_the_weights_is_applied_and_recorded(
    run: Path, tiny_mlp: Path, data: Path, door
) -> None:
    changes = [str(part) for name, value in NEW.items() for part in (f"--{name}", value)]
    done = door("fit", *options(tiny_mlp, data, run), *changes)
    assert done.code == 0, done.err
    saved = checkpoint(run)
    (group,) = saved["optimizer_states"][0]["param_groups"]
    assert (group["lr"], tuple(group["betas"]), group["weight_decay"]) == (0.25, (0.5, 0.75), 0.125)
    changed = saved[CHECKPOINT_KEY]["config"]["changed"]
    assert {entry["setting"]: entry["to"] for entry in changed} == NEW
    assert all(entry["images"] == 32 for entry in changed)
    assert energydiff.open_model(run / "export").config["changed"] == changed
    text = (run / "config.yaml").read_text()
    assert "# model.learning_rate: 0.001 until image 32, then 0.25\n" in text
    assert yaml.safe_load(text)["model"]["learning_rate"] == 0.25

    again = [*changes, "--model.total_images", 128]
    assert door("fit", *options(tiny_mlp, data, run), *again).code == 0
    changed = checkpoint(run)[CHECKPOINT_KEY]["config"]["changed"]
    assert len(changed) == len(NEW) + 1
    assert changed[-1] == {"images": 96, "setting": "model.total_images", "from": 96, "to": 128}


def test_the_first_step_after_more_images_moves_the_weights(
    run: Path, tiny_mlp: Path, data: Path, door
) -> None:
    """The cosine of the shorter run had ended at a rate of 0."""
    before = checkpoint(run)
    assert before["optimizer_states"][0]["param_groups"][0]["lr"] == 0
    assert door("fit", *options(tiny_mlp, data, run), "--model.total_images", 64).code == 0
    after = checkpoint(run)
    assert after["global_step"] == 2
    weights = [state["current_model_state"] for state in (before, after)]
    name = next(name for name in weights[0] if name.endswith("input.weight"))
    assert not torch.equal(weights[0][name], weights[1][name])


KEPT = {
    "data.batch_size": 16,
    "data.flip": "true",
    "data.sigma_data": 0.9,
    "data.source.held_out": 0.3,
    "data.source.value_range": "[-1, 4]",
    "model.label_dropout": 0.3,
    "model.objective": "energydiff.diffusion.DualScoreMatching",
    "model.noise": "energydiff.diffusion.LogNormal",
    "model.parametrization": "sum",
    "model.backbone.width": 8,
    "model.sigma_min": 0.1,
    "model.sigma_max": 5,
    "seed_everything": 7,
}


@pytest.mark.parametrize("name", KEPT)
def test_what_the_model_or_its_images_are_is_refused_by_name(
    name: str, run: Path, tiny_mlp: Path, data: Path, door
) -> None:
    before = (run / LAST_CHECKPOINT).read_bytes()
    option = name.replace("backbone.", "backbone.init_args.")
    more = ["--model.total_images", 64, f"--{option}", KEPT[name]]
    done = door("fit", *options(tiny_mlp, data, run), *more)
    assert f"was trained with {name} " in done.sentence, done.err
    assert "--init" in done.sentence
    assert (run / LAST_CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("data.source.held_out", 0.3, True),
        ("model.objective", "energydiff.diffusion.DualScoreMatching", True),
        ("data.batch_size", 16, False),
        ("model.learning_rate", 1, False),
    ],
)
def test_a_held_out_loss_is_that_of_the_run(
    name: str, value: object, kept: bool, run: Path, tiny_mlp: Path, data: Path, door
) -> None:
    done = door("validate", *options(tiny_mlp, data, run), f"--{name}", value)
    assert (f"was trained with {name} " in done.sentence) == kept
    assert done.code == (2 if kept else 0), done.err


@pytest.mark.parametrize("rule", [None, "another"])
def test_noise_of_two_rules_is_not_mixed(
    rule: str | None, run: Path, tiny_mlp: Path, data: Path, door
) -> None:
    """A checkpoint without a record is of the earlier rule: measured, but not gone on from."""
    saved = checkpoint(run)
    assert saved[CHECKPOINT_KEY].pop("noise") == RULE
    if rule is not None:
        saved[CHECKPOINT_KEY]["noise"] = rule
    torch.save(saved, run / LAST_CHECKPOINT)
    before = (run / LAST_CHECKPOINT).read_bytes()
    arguments = options(tiny_mlp, data, run)
    done = door("fit", *arguments, "--model.total_images", 64)
    assert "drawn by another rule" in done.sentence and "--init" in done.sentence, done.err
    assert (run / LAST_CHECKPOINT).read_bytes() == before
    assert door("validate", *arguments).code == door("fit", *arguments).code == 0
    anew = options(tiny_mlp, data, run.parent / "anew")
    assert door("fit", *anew, "--init", run).code == 0
    assert checkpoint(run.parent / "anew")[CHECKPOINT_KEY]["noise"] == RULE


def test_how_a_run_is_carried_out_is_free(run: Path, tiny_mlp: Path, data: Path, door) -> None:
    moved = Path(shutil.copy(data, run.parent / "moved.npy"))
    more = ["--checkpoint_every_images", 0, "--trainer.accumulate_grad_batches", 2]
    more += ["--model.total_images", 64, "--finish.images", 5]
    assert door("fit", *options(tiny_mlp, moved, run), *more).code == 0
    changed = checkpoint(run)[CHECKPOINT_KEY]["config"]["changed"]
    assert [entry["setting"] for entry in changed] == ["model.total_images"]


def test_a_step_takes_whole_batches_whatever_it_was_made_of_before(
    tiny_mlp: Path, data: Path, tmp_path: Path, door
) -> None:
    """Three steps of one batch each, then of two: not one of one batch and the others shifted."""
    runs = [tmp_path / name for name in ("changed", "straight")]
    constant = ["--model.schedule", "constant", "--trainer.accumulate_grad_batches"]
    for run, total, batches in ((runs[0], 96, 1), (runs[0], 224, 2), (runs[1], 224, 2)):
        length = ["--model.total_images", total]
        assert door("fit", *options(tiny_mlp, data, run), *length, *constant, batches).code == 0
    one, other = (checkpoint(run)["current_model_state"] for run in runs)
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in other)


@pytest.mark.slow
def test_a_run_moves_house(tiny_mlp: Path, data: Path, tmp_path: Path, process) -> None:
    """Another folder, other data of the same names elsewhere, two ranks with workers for one
    without: the weights are those of a run that was left alone, up to the order of sums."""
    first, moved, straight = (tmp_path / name for name in ("first", "moved", "straight"))
    constant = ["--model.schedule", "constant", "--model.total_images"]
    assert process("fit", *options(tiny_mlp, data, first), *constant, 96).code == 0
    first.rename(moved)
    elsewhere = Path(shutil.copy(data, tmp_path / "elsewhere.npy"))
    two = ["--trainer.devices", 2, "--trainer.strategy", "ddp", "--data.num_workers", 2]
    done = process("fit", *options(tiny_mlp, elsewhere, moved), *two, *constant, 224)
    assert done.code == 0, done.err
    assert process("fit", *options(tiny_mlp, data, straight), *constant, 224).code == 0
    one, other = (checkpoint(run)["current_model_state"] for run in (moved, straight))
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in other)
    changed = checkpoint(moved)[CHECKPOINT_KEY]["config"]["changed"]
    assert [entry["setting"] for entry in changed] == ["model.total_images"]


@pytest.mark.parametrize("name", [*FREE, *RECORDED])
def test_the_table_names_every_rule(name: str) -> None:
    internal = ("changed", "train_images", "train_names", "import", "ckpt_path")
    assert name in internal or f"`{name}" in (ROOT / "docs/train.md").read_text()


def test_an_image_more_makes_no_other_model(
    run: Path, tiny_mlp: Path, data: Path, tmp_path: Path, door
) -> None:
    """σ_d and range were estimated for the run, and stay what they were."""
    more = tmp_path / "more.npy"
    np.save(more, np.concatenate([images(), images(9, largest=50.0)]))
    before = energydiff.open_model(run)
    assert door("validate", *options(tiny_mlp, more, run)).code == 0
    done = door("fit", *options(tiny_mlp, more, run), "--model.total_images", 64)
    assert done.code == 0, done.err
    after = energydiff.open_model(run)
    assert after.denoiser.sigma_data == before.denoiser.sigma_data
    assert after.normalization == before.normalization
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["data"]["sigma_data"] is None  # a wish, which another run may share
    assert after.config["data"]["sigma_data"] == before.denoiser.sigma_data
    (_, count, names) = after.config["changed"]
    assert count["setting"] == "train_images" and count["to"] > count["from"]
    assert names["setting"] == "train_names" and names["to"] != names["from"]


def test_a_folder_that_grew_is_gone_on_with_and_another_is_refused(
    tiny_mlp: Path, tmp_path: Path, door
) -> None:
    """24 of 30 images seen: the pass is finished, new images come in with the next."""
    folder, run = tmp_path / "images", tmp_path / "run"
    folder.mkdir()
    for number in range(30):
        noise = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number:03d}.png")
    source = ["--data.source", "Folder", "--data.source.root", folder, "--data.batch_size", 8]
    quick = ["--monitor.every_images", 0, "--val_every_images", 0, "--finish.evaluations", 0]
    fit = ["fit", "--config", tiny_mlp, *source, *quick, "--trainer.default_root_dir", run]
    every = ["--data.source.held_out", 0, "--model.total_images"]
    assert door(*fit, *every, 24).code == 0
    for number in range(30, 34):
        shutil.copy(folder / "000.png", folder / f"{number:03d}.png")
    (folder / "007.png").rename(folder / "renamed.png")
    done = door(*fit, *every, 64)
    assert done.code == 0
    assert "5 are new and 1 are gone or have another name, such as 007.png" in done.err
    assert "from image 30 on passes take all" in done.err
    settings = [entry["setting"] for entry in energydiff.open_model(run).config["changed"]]
    assert settings == ["model.total_images", "train_images", "train_names"]

    below = folder / "below"
    below.mkdir()
    for file in folder.glob("*.png"):
        file.rename(below / file.name)
    done = door(*fit, *every, 96)
    assert "none of the 34 samples of this run, such as 000.png, is found" in done.sentence


def test_init_starts_from_the_weights_of_another_run(
    trained: Path, tiny_mlp: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Averaged weights and σ_d, at image 0, on other data."""
    other = tmp_path / "other.npy"
    np.save(other, 2 * images(50))
    arguments = [*options(tiny_mlp, other, tmp_path / "run"), "--init", trained]
    monkeypatch.setattr("sys.argv", ["energydiff"])
    cli = EnergyDiffCLI("fit", [str(argument) for argument in arguments])
    seen: dict[str, torch.Tensor] = {}

    def fit(model: Any, ckpt_path: str | None, **_: Any) -> None:
        seen.update(model.denoiser.state_dict())
        assert ckpt_path is None

    monkeypatch.setattr(cli.trainer, "fit", fit)
    cli.go()
    for path in (trained, trained / "export"):
        given = energydiff.load(path)
        assert cli.datamodule.sigma_data == given.sigma_data
        assert all(torch.equal(seen[name], value) for name, value in given.state_dict().items())


def test_init_of_another_network_is_a_sentence(
    trained: Path, tiny_mlp: Path, data: Path, tmp_path: Path, door
) -> None:
    arguments = options(tiny_mlp, data, tmp_path / "run")
    done = door("fit", *arguments, "--init", trained, "--model.backbone.init_args.width", 8)
    assert "is of another network than the one configured" in done.sentence
    done = door("fit", *arguments, "--init", tmp_path / "nowhere")
    assert "nowhere does not exist" in done.sentence


def test_a_run_that_was_started_from_weights_goes_on_without_them(
    trained: Path, tiny_mlp: Path, data: Path, tmp_path: Path, door
) -> None:
    arguments = options(tiny_mlp, data, tmp_path / "run")
    given = Path(shutil.copytree(trained, tmp_path / "given"))
    assert door("fit", *arguments, "--init", given).code == 0
    shutil.rmtree(given)
    more = ["--init", given, "--model.total_images", 64]
    assert door("fit", *arguments, *more).code == 0
    assert checkpoint(tmp_path / "run")["global_step"] == 2


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [("model.hidden_share", "[0.2, 0.3]", True), ("model.learning_rate", 0.5, False)],
)
def test_completion_follows_the_same_rules(
    name: str, value: object, kept: bool, tmp_path: Path, door
) -> None:
    run = ["complete", "fit", "--config", "configs/digits/completion.yaml"]
    run += ["--val_every_images", "0", "--trainer.default_root_dir", str(tmp_path / "run")]
    assert door(*run, "--model.total_images", 64).code == 0
    done = door(*run, "--model.total_images", 128, f"--{name}", value)
    assert (f"was trained with {name} " in done.sentence) == kept, done.err
    if not kept:
        saved = checkpoint(tmp_path / "run")
        assert saved["optimizer_states"][0]["param_groups"][0]["initial_lr"] == value
        changed = saved[CHECKPOINT_KEY]["config"]["changed"]
        assert {"images": 64, "setting": name, "from": 0.005, "to": value} in changed


def test_other_classes_are_refused(tiny_mlp: Path, tmp_path: Path, door) -> None:
    """A folder more is another meaning of every label."""
    for name in ("cat", "dog"):
        (tmp_path / "animals" / name).mkdir(parents=True)
        for i in range(12):
            pixels = np.random.default_rng(i).integers(0, 255, (4, 4)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "animals" / name / f"{i}.png")
    source = ["--data.source", "Folder", "--data.source.root", tmp_path / "animals"]
    source += ["--data.source.labels", "true", "--data.source.channels", 1]
    source += ["--data.source.held_out", 0.2, "--data.source.image_size", 4]
    quick = ["--monitor.every_images", 0, "--val_every_images", 0, "--finish.evaluations", 0]
    command = ["fit", "--config", tiny_mlp, *source, *quick]
    command += ["--trainer.default_root_dir", tmp_path / "run"]
    done = door(*command)
    assert done.code == 0, done.err
    shutil.copytree(tmp_path / "animals/cat", tmp_path / "animals/bird")
    done = door(*command, "--model.total_images", 64)
    assert (
        "was trained with the classes ['cat', 'dog'], not ['bird', 'cat', 'dog']" in done.sentence
    )
