"""``energydiff distil``: from a baseline's weights, gone on with by the same command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import energydiff
from energydiff.cli import replay
from energydiff.denoisers import network_of
from energydiff.diffusion import Teacher
from energydiff.saving import CHECKPOINT_KEY, LAST_CHECKPOINT
from energydiff.training import nonfinite

Door = Callable[..., Any]


def options(config: Path, run: Path, images: int = 64) -> list[object]:
    quick = ["--monitor.every_images", 0, "--val_every_images", 0, "--finish.evaluations", 64]
    # The teacher to the end, so that a run that goes on is as one that was longer from its start.
    model = ["--model.schedule", "constant", "--model.teacher_share", 1]
    model += ["--model.total_images", images]
    return ["--config", config, *quick, *model, "--trainer.default_root_dir", run]


@pytest.fixture(scope="module")
def teacher(process, tiny_mlp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("teacher") / "baseline"
    done = process("fit", *options(tiny_mlp, run), "--model.parametrization", "unconstrained")
    assert done.code == 0, done.err
    return run


@pytest.fixture(scope="module")
def distilled(
    process, teacher: Path, tiny_mlp: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("distilled") / "energy"
    done = process("distil", teacher, *options(tiny_mlp, run))
    assert done.code == 0, done.err
    assert "13 of 13 tensors start as the teacher's" in done.out + done.err
    return run


def weights(run: Path, part: str = "current_model_state") -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / LAST_CHECKPOINT, weights_only=True)[part]
    return state


def test_it_starts_from_the_teacher_and_leaves_an_energy(
    teacher: Path, distilled: Path, tiny_mlp: Path, tmp_path: Path, door: Door
) -> None:
    """At a learning rate of next to nothing the weights are still the teacher's."""
    run = tmp_path / "run"
    done = door("distil", teacher, *options(tiny_mlp, run), "--model.learning_rate", 1e-12)
    assert done.code == 0, done.err
    mine, theirs = (network_of(energydiff.load(path)) for path in (run, teacher))
    assert mine is not None and theirs is not None
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], value, rtol=0, atol=1e-8)
    assert energydiff.load(distilled / "export").energy is not None
    assert energydiff.load(distilled).sigma_data == energydiff.load(teacher).sigma_data


def test_a_checkpoint_has_no_teacher_but_says_which_it_was(
    teacher: Path, distilled: Path, tiny_mlp: Path, tmp_path: Path, door: Door
) -> None:
    plain = tmp_path / "plain"
    assert door("fit", *options(tiny_mlp, plain)).code == 0
    assert weights(distilled).keys() == weights(plain).keys()
    content = torch.load(distilled / LAST_CHECKPOINT, weights_only=True)
    record = content[CHECKPOINT_KEY]["config"]["teacher"]
    assert record["path"] == str(teacher) and len(record["sha256"]) == 64
    config = yaml.safe_load((distilled / "config.yaml").read_text())
    assert config["teacher"] == str(teacher)


def test_the_same_command_goes_on_as_if_nothing_had_happened(
    teacher: Path,
    distilled: Path,
    tiny_mlp: Path,
    tmp_path: Path,
    door: Door,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From its own weights, not the teacher's; also where the teacher lies elsewhere, and by the
    configuration that the run has kept."""
    run, moved = tmp_path / "run", Path(shutil.copytree(teacher, tmp_path / "moved"))
    assert door("distil", teacher, *options(tiny_mlp, run, 32)).code == 0
    caplog.clear()
    assert door("distil", moved, *options(tiny_mlp, run, 64)).code == 0
    assert "going on at image 32" in caplog.text and "tensors start" not in caplog.text
    again, at_once = weights(run), weights(distilled)
    assert all(torch.equal(again[name], at_once[name]) for name in again)

    kept = ["--config", distilled / "config.yaml", "--trainer.default_root_dir", run]
    assert door("fit", *kept, "--model.total_images", 96).code == 0
    assert "going on at image 64" in caplog.text


def test_a_run_keeps_its_teacher(
    teacher: Path, distilled: Path, tiny_mlp: Path, tmp_path: Path, door: Door
) -> None:
    run = Path(shutil.copytree(distilled, tmp_path / "run"))
    more = options(tiny_mlp, run, 96)
    done = door("distil", distilled, *more)
    assert "was trained with teacher.sha256" in done.sentence, done.err
    done = door("fit", *more)
    assert "was trained with teacher {'path'" in done.sentence, done.err


def test_a_held_out_loss_needs_no_teacher(
    teacher: Path, distilled: Path, tiny_mlp: Path, tmp_path: Path, door: Door
) -> None:
    kept = ["--config", distilled / "config.yaml", "--trainer.default_root_dir", distilled]
    assert door("validate", *kept, "--teacher", tmp_path / "gone").code == 0


def test_an_energy_teaches_another_network(
    distilled: Path, tiny_mlp: Path, tmp_path: Path, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    deeper = ["--model.backbone.init_args.depth", 2, "--trainer.precision", "bf16-mixed"]
    done = door("distil", distilled / "export", *options(tiny_mlp, tmp_path / "run"), *deeper)
    assert done.code == 0 and "13 of 19 tensors start as" in caplog.text, caplog.text


def test_a_pipeline_of_diffusers_teaches_its_own_unet(
    tiny_mlp: Path, tmp_path: Path, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """From all of its weights, with its σ_d of 1."""
    diffusers = pytest.importorskip("diffusers")
    kinds = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    unet = {"sample_size": 4, "in_channels": 1, "out_channels": 1, "layers_per_block": 1}
    unet |= {"block_out_channels": [8], "norm_num_groups": 4, "attention_head_dim": 8, **kinds}
    scheduler = diffusers.DDPMScheduler()
    pipeline, run = tmp_path / "pipeline", tmp_path / "run"
    diffusers.DDPMPipeline(diffusers.UNet2DModel(**unet), scheduler).save_pretrained(pipeline)
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    network = {"network": "diffusers.UNet2DModel", "arguments": unet}
    backbone = {"class_path": "DiscreteTime", "init_args": network}
    source = ["--data.source", "Arrays", "--data.source.root", tmp_path / "images.npy"]
    given = [*source, "--model.backbone", json.dumps(backbone), "--data.batch_size", 8]
    given += ["--model.learning_rate", 1e-12, "--import", "diffusers"]
    done = door("distil", pipeline, *options(tiny_mlp, run, 8), *given)
    assert done.code == 0, done.err
    mine, theirs = (network_of(energydiff.load(path)) for path in (run, pipeline))
    assert mine is not None and theirs is not None
    state = theirs.state_dict()
    assert f"{len(state)} of {len(state)} tensors start" in caplog.text
    torch.testing.assert_close(dict(mine.state_dict()), dict(state), rtol=0, atol=1e-8)
    assert energydiff.load(run).sigma_data == 1.0


WRONG: dict[str, tuple[list[object], str]] = {
    "none": ([], "energydiff distil needs a teacher, first of all"),
    "nowhere": (["nowhere"], "nowhere does not exist"),
    "no model": (["tests"], "tests holds no model"),
}


@pytest.mark.parametrize("case", WRONG)
def test_without_a_teacher_there_is_a_sentence(
    case: str, tiny_mlp: Path, tmp_path: Path, door: Door
) -> None:
    given, sentence = WRONG[case]
    done = door("distil", *given, *options(tiny_mlp, tmp_path / "run"))
    assert sentence in done.sentence, done.err
    assert not (tmp_path / "run").exists()


def test_a_step_taken_again_has_the_exact_mean_of_the_data(
    door: Door, tiny_mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = tmp_path / "run", list[Any]()
    more = ("--monitor.every_images", 0, "--model.learning_rate", 1e30, "--model.total_images", 96)
    given = ("--config", tiny_mlp, "--model.stable_targets", "true", *more)
    assert door("fit", *given, "--trainer.default_root_dir", run).code != 0

    def replayed(trainer: Any, module: Any, batches: Any) -> Any:
        seen.append(module.data_mean)
        return nonfinite.replay(trainer, module, batches)

    monkeypatch.setattr(replay, "replay", replayed)
    (kept,) = (run / "nonfinite").iterdir()
    assert door("replay", kept, "--accelerator", "cpu").code == 0
    assert seen and all(isinstance(told, Teacher) for told in seen)
