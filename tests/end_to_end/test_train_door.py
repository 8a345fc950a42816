"""``energydiff fit``: what it leaves, what it measures, and what it says when it cannot."""

import json
import math
import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import energydiff
from energydiff.cli.training import EnergyDiffCLI
from energydiff.training import DiffusionModule

Metrics = Callable[[Path], dict[str, list[float]]]


def test_a_run_leaves_what_it_takes_to_repeat_and_use_it(unet_run: Path) -> None:
    """Config, environment, checkpoint, export, metrics and sample grids."""
    files = {str(file.relative_to(unet_run)) for file in unet_run.rglob("*")}
    assert files >= {
        *("config.yaml", "environment.json", "checkpoints/last.ckpt"),
        *("export/model.yaml", "export/model.safetensors"),
        *("samples/000000960.png", "samples/000001920.png"),
        "metrics/version_0/metrics.csv",
    }
    config = yaml.safe_load((unet_run / "config.yaml").read_text())
    assert config["model"]["total_images"] == 1920
    assert "torch" in json.loads((unet_run / "environment.json").read_text())["packages"]


def test_the_metrics_are_there_and_finite(unet_run: Path, metrics: Metrics) -> None:
    found = metrics(unet_run)
    assert found.keys() >= {
        *("train/loss", "val/loss", "images_per_second", "lr"),
        *("lyapunov/descending", "lyapunov/worst_rise"),
        *("lyapunov/descent_rises", "lyapunov/landscape_rises"),
        *("lyapunov/V_s0.02", "lyapunov/E_s0.02", "lyapunov/gap_s0.02"),
    }
    assert found["step"][-1] == 1920  # images
    assert all(math.isfinite(value) for values in found.values() for value in values)


def test_the_run_and_its_export_are_the_same_model(unet_run: Path) -> None:
    """The averaged weights, gauge included."""
    run, export = (energydiff.load(path) for path in (unet_run, unet_run / "export"))
    checkpoint = torch.load(unet_run / "checkpoints" / "last.ckpt", weights_only=True)
    for name, value in export.state_dict().items():
        assert torch.equal(value, run.state_dict()[name])
        assert torch.equal(value, checkpoint["state_dict"]["denoiser." + name])
    assert export.gauge.offset.any()
    name = "denoiser.potential.backbone.input.weight"
    assert not torch.equal(checkpoint["state_dict"][name], checkpoint["current_model_state"][name])


@pytest.mark.parametrize(("command", "name"), [("validate", "val/loss"), ("test", "test/loss")])
def test_a_run_is_measured_with_its_averaged_weights(
    command: str, name: str, unet_run: Path, tiny_unet: Path, door, metrics: Metrics
) -> None:
    """The held-out loss that was logged at the last step is the one printed."""
    expected = metrics(unet_run)["val/loss"][-1]
    options = ["--config", tiny_unet, "--trainer.default_root_dir", unet_run]
    done = door(command, *options, "--trainer.logger", "false")
    assert done.code == 0
    shown = re.search(rf"{name}\W+([0-9.]+)", done.out)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(expected, rel=1e-5)


def test_a_network_that_asks_for_it_is_given_the_scale_of_the_data(tmp_path: Path, door) -> None:
    """The waves of likelihood.yaml; and the run goes on."""
    options = ["--config", "configs/digits/likelihood.yaml", "--monitor.every_images", 0]
    options += ["--val_every_images", 0, "--trainer.default_root_dir", tmp_path / "run"]
    for images in (64, 128):
        assert door("fit", *options, "--model.total_images", images).code == 0
    model = energydiff.load(tmp_path / "run")
    network = model.potential.backbone
    assert network.sigma_data == model.sigma_data != 1.0
    assert list(network.config["periods"]) == [0.125, 0.25]


def test_configurations_stack(unet_run: Path, tiny_unet: Path, tmp_path: Path, door) -> None:
    """A later --config overrides an earlier one, and an option both."""
    more = tmp_path / "more.yaml"
    more.write_text("model: {total_images: 64, learning_rate: 1.0e-5}\nmonitor: {samples: 2}\n")
    options = ["--trainer.default_root_dir", tmp_path / "run", "--monitor.steps", 2]
    done = door("fit", "--config", tiny_unet, "--config", more, *options)
    assert done.code == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["model"]["total_images"], config["model"]["learning_rate"]) == (64, 1e-5)
    assert (config["monitor"]["samples"], config["monitor"]["steps"]) == (2, 2)
    assert config["model"]["sigma_max"] == 10.0


def test_the_first_and_last_words_of_a_run(
    process, tiny_mlp: Path, tmp_path: Path, metrics: Metrics
) -> None:
    """What is trained, where, how long; progress in images; a held-out loss however short it is."""
    run = tmp_path / "run"
    options = ["--config", tiny_mlp, "--trainer.default_root_dir", run]
    options += ["--val_every_images", 10**6, "--monitor.every_images", 0]
    done = process("fit", *options)
    assert done.code == 0, done.err
    parameters = sum(p.numel() for p in energydiff.load(run).parameters())
    lines = [
        f"Energy over MLP: {parameters:,} parameters on 1 cpu in 32-true",
        "32 images, 32 a step, 1 in all",
        f"run folder {run}",
    ]
    assert "\n".join(lines) in done.err
    assert re.search(r"^image 32 of 32  train/loss [\d.]+  0:00:00 left$", done.out, re.MULTILINE)
    found = metrics(run)
    assert len(found["val/loss"]) == 1
    assert not any(name.startswith("lyapunov/") for name in found)
    done = process("fit", *options, "--model.total_images", 64, "--val_every_images", 0)
    assert "64 images, 32 a step, 2 in all, going on at image 32\n" in done.err
    assert len(metrics(run)["val/loss"]) == 1


def test_an_interrupted_run_says_how_to_go_on(
    tiny_mlp: Path, tmp_path: Path, door, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = DiffusionModule.training_step

    def interrupted(module: DiffusionModule, batch: dict, batch_idx: int) -> torch.Tensor:
        if module.trainer.global_step == 3:
            raise KeyboardInterrupt
        return step(module, batch, batch_idx)

    monkeypatch.setattr(DiffusionModule, "training_step", interrupted)
    run = tmp_path / "run"
    options = ["--config", tiny_mlp, "--trainer.default_root_dir", run]
    handler = signal.getsignal(signal.SIGINT)
    try:
        done = door("fit", *options, "--model.total_images", 320, "--checkpoint_every_images", 64)
        assert done.code == 130
        last = run / "checkpoints" / "last.ckpt"
        assert f"run the same command again to go on from {last}, image 64." in done.err
    finally:
        signal.signal(signal.SIGINT, handler)


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    file = tmp_path / "ring.npy"
    angle = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    np.save(file, np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32))
    return file


def test_vectors_train_too(vectors: Path, tiny_mlp: Path, tmp_path: Path, door) -> None:
    run = tmp_path / "run"
    options = ["--data.source=Arrays", "--data.source.root", vectors]
    options += ["--trainer.default_root_dir", run]
    done = door("fit", "--config", tiny_mlp, *options)
    assert done.code == 0
    assert energydiff.load(run).shape == (2,)
    assert not list(run.rglob("*.png"))


def test_labels_train_too(tiny_mlp: Path, tmp_path: Path, door) -> None:
    run = tmp_path / "run"
    options = ["--data.source.labels", "true", "--trainer.default_root_dir", run]
    assert door("fit", "--config", tiny_mlp, *options).code == 0
    saved = energydiff.open_model(run)
    assert saved.denoiser.num_classes == 10
    assert saved.classes == tuple("0123456789")


NOISE = "--model.noise.class_path=energydiff.diffusion.LogNormal"
MISTAKES = {
    "no data": (["--data.source=Folder", "--data.source.root=nowhere"], "nowhere"),
    "no root": (["--data.source=Folder"], "Folder needs data.source.root"),
    "root of digits": (
        ["--data.source.root=nowhere"],
        "data.source.root has no meaning for Digits: leave it out",
    ),
    "batch": (["--data.batch_size=33", "--trainer.accumulate_grad_batches=2"], "batch_size 33"),
    "no batch": (["--data.batch_size=0"], "data.batch_size is 0"),
    "sigma": (["--model.sigma_min=3", "--model.sigma_max=2"], "model.sigma_min = 3.0"),
    "spread": ([NOISE, "--model.noise.init_args.std=-1"], "noise std is -1"),
    "held out": (["--data.source.held_out=1.5"], "data.source.held_out"),
    "unet size": (["--model.backbone.init_args.multipliers=[1,1,1,1,1]"], "image size 8"),
    "float16": (["--trainer.precision=16-mixed"], "precision 16-mixed is not supported"),
    "float16, in short": (["--trainer.precision=16"], "or bf16-mixed"),
    "bfloat16 weights": (["--trainer.precision=bf16-true"], "precision bf16-true"),
    "float64": (["--trainer.precision=64-true"], "precision 64-true"),
    "another library": (["--trainer.precision=transformer-engine"], "precision transformer"),
    "shards": (["--trainer.strategy=fsdp"], "trainer.strategy fsdp is not supported"),
    "shards of a library": (["--trainer.strategy=deepspeed_stage_2"], "use auto or ddp"),
    "compiled shards": (
        ["--trainer.strategy=fsdp2", "--model.compile=true"],
        "fsdp2 and model.compile do not go together",
    ),
    "another device's": (["--trainer.strategy=xla"], "trainer.strategy xla is not supported"),
    "seed": (["--seed_everything=-5"], "seed_everything is -5"),
    "learning rate": (["--model.learning_rate=-1"], "model.learning_rate is -1.0"),
    "no learning rate": (["--model.learning_rate=0"], "model.learning_rate is 0.0"),
    "not a learning rate": (["--model.learning_rate=.nan"], "model.learning_rate is nan"),
    "decay": (["--model.weight_decay=-1"], "model.weight_decay is -1"),
    "betas": (["--model.betas=[0.9, 1.5]"], "model.betas is (0.9, 1.5)"),
    "validation": (["--val_every_images=-5"], "val_every_images is -5"),
    "saves": (["--checkpoint_every_images=-5"], "checkpoint_every_images is -5"),
    "monitor": (["--monitor.every_images=-5"], "every_images is -5"),
    "sigma_data": (["--data.sigma_data=-1"], "sigma_data is -1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_sentence(mistake: str, tiny_unet: Path, tmp_path: Path, door) -> None:
    options, message = MISTAKES[mistake]
    run = tmp_path / "run"
    done = door("fit", "--config", tiny_unet, "--trainer.default_root_dir", run, *options)
    assert message in done.sentence, done.err
    assert not (run / "checkpoints").exists()


def test_one_device_unless_more_are_asked_for(tiny_mlp: Path, tmp_path: Path) -> None:
    """Lightning would take all there are, and split a batch of 64 among them."""
    config = tmp_path / "config.yaml"
    config.write_text(tiny_mlp.read_text().replace("devices: 1", f"default_root_dir: {tmp_path}"))
    asked = ["--config", str(config)]
    assert EnergyDiffCLI("fit", asked).config.trainer.devices == 1
    assert EnergyDiffCLI("fit", [*asked, "--trainer.devices=2"]).trainer.num_devices == 2


def test_a_cluster_set_up_otherwise_is_a_sentence(
    process, tiny_mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"NTASKS": "4", "JOB_ID": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in {**job, "JOB_NAME": "train"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    done = process("fit", "--config", tiny_mlp, "--trainer.default_root_dir", tmp_path / "run")
    assert "trainer: You set `--ntasks=4`" in done.sentence, done.err


def test_a_unet_on_vectors_is_a_sentence(
    vectors: Path, tiny_unet: Path, tmp_path: Path, door
) -> None:
    options = ["--data.source=Arrays", "--data.source.root", vectors, "--data.flip=false"]
    run = ["--trainer.default_root_dir", tmp_path / "run"]
    done = door("fit", "--config", tiny_unet, *run, *options)
    assert "use the MLP backbone for vectors" in done.sentence, done.err


def test_flipped_vectors_are_a_sentence(
    vectors: Path, tiny_mlp: Path, tmp_path: Path, door
) -> None:
    options = ["--data.source=Arrays", "--data.source.root", vectors, "--data.flip=true"]
    run = ["--trainer.default_root_dir", tmp_path / "run"]
    done = door("fit", "--config", tiny_mlp, *run, *options)
    assert "data.flip mirrors images" in done.sentence, done.err


@pytest.mark.parametrize("command", ["validate", "test"])
def test_measuring_before_training_is_a_sentence(
    command: str, tiny_unet: Path, tmp_path: Path, door
) -> None:
    options = ["--config", tiny_unet, "--trainer.default_root_dir", tmp_path / "run"]
    assert "train first" in door(command, *options).sentence


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--data.source", "imagenet"], "data.source"),
        (["--model.colour", "red"], "colour"),
        (["--model.total_images", "many"], "total_images"),
        (["--model.parametrization", "square"], "parametrization"),
        (["--model.backbone", "torch.nn.Linear"], "backbone"),
    ],
)
def test_an_option_that_is_none_is_named(options: list[str], message: str, tiny_unet, door) -> None:
    done = door("fit", "--config", tiny_unet, *options)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_run_that_diverges_stops_in_a_process_of_its_own(
    process, tiny_unet: Path, tmp_path: Path
) -> None:
    """Exit code 2 and one sentence that names the step, the rank and the samples."""
    options = ["--model.learning_rate", "1e30", "--model.warmup_images", "0"]
    run = ["--trainer.default_root_dir", tmp_path / "run"]
    done = process("fit", "--config", tiny_unet, *run, *options)
    assert re.search(
        r"training stopped before step \d+: not finite on rank 0: .*indices \[\d+", done.sentence
    ), done.err


@pytest.mark.parametrize("blind", [False, True])
def test_a_run_need_hold_nothing_out(
    blind: bool, tiny_mlp: Path, tmp_path: Path, door, metrics: Metrics
) -> None:
    """It is watched on training images then, has no held-out loss, and cannot be asked for one."""
    options = ["--config", tiny_mlp, "--data.source.held_out=0"]
    options += ["--trainer.default_root_dir", tmp_path, "--monitor.probe_images=8"]
    if blind:
        options += ["--model.parametrization=coercive"]
        options += ["--model.objective=energydiff.diffusion.EquilibriumMatching"]
    done = door("fit", *options)
    assert done.code == 0, done.err
    found = metrics(tmp_path)
    assert not any(name.startswith("val/") for name in found)
    assert any(name.startswith("lyapunov/") for name in found)
    assert all(math.isfinite(value) for values in found.values() for value in values)
    assert "data.source.held_out is 0" in door("validate", *options).sentence
    assert "data.source.held_out is 0" in door("evaluate", "fid", tmp_path, "-n", 40).sentence
