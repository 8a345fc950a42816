"""A pipeline of diffusers is the denoiser that its scheduler makes of its U-Net."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import energydiff
from energydiff.errors import UserError
from energydiff.potentials.discrete_time import DiscreteTime, chain_levels
from energydiff.saving import SavedModel, open_model, read_description

diffusers = pytest.importorskip("diffusers")

UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}


def saved(folder: Path, unet: dict[str, Any] | None = None, **scheduler: Any) -> Any:
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(**UNET | (unet or {}))
    pipeline = diffusers.DDPMPipeline(network, diffusers.DDPMScheduler(**scheduler))
    pipeline.save_pretrained(folder)
    return pipeline


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_its_denoiser_is_the_one_of_the_scheduler(
    prediction: str, schedule: str, tmp_path: Path
) -> None:
    """At the steps of the chain, x = √(1+σ²) x_t."""
    chain = {"prediction_type": prediction, "beta_schedule": schedule, "clip_sample": False}
    pipeline = saved(tmp_path, num_train_timesteps=50, **chain)
    model = energydiff.load(tmp_path)
    for t in (0, 7, 31, 48):
        x_t = torch.randn(2, 1, 8, 8)
        with torch.no_grad():
            told = pipeline.unet(x_t, t).sample
        expected = pipeline.scheduler.step(told, t, x_t).pred_original_sample
        kept = pipeline.scheduler.alphas_cumprod[t]
        sigma = ((1 - kept) / kept).sqrt()
        mine = model.denoise(x_t / kept.sqrt(), sigma)
        scale = float(1 + sigma)
        assert_close(mine / scale, expected / scale, rtol=1e-4, atol=1e-4)


def test_its_levels_are_those_of_the_scheduler() -> None:
    for schedule in ("linear", "scaled_linear", "squaredcos_cap_v2"):
        kept = diffusers.DDPMScheduler(beta_schedule=schedule).alphas_cumprod
        levels = chain_levels(schedule, 1e-4, 0.02, 1000)
        assert_close(levels.float(), ((1 - kept) / kept).sqrt(), rtol=2e-3, atol=0)


def test_time_runs_between_the_steps() -> None:
    """Half a step at the geometric mean of two levels, and no further than the ends."""
    network = DiscreteTime((1, 8, 8), diffusers.UNet2DModel, UNET, steps=50)
    levels = network.log_levels
    asked = torch.stack([levels[3], (levels[3] + levels[4]) / 2, levels[0] - 1, levels[-1] + 1])
    assert_close(network.time(asked / 4), torch.tensor([3.0, 3.5, 0.0, 49.0]), rtol=0, atol=1e-3)


def test_it_is_a_model_that_an_export_keeps(tmp_path: Path) -> None:
    saved(tmp_path / "pipeline", prediction_type="v_prediction")
    model = open_model(tmp_path / "pipeline")
    energydiff.save_model(SavedModel(model.denoiser, model.normalization), tmp_path / "export")
    x = torch.randn(2, 1, 8, 8)
    again = energydiff.load(tmp_path / "export")
    assert torch.equal(again.denoise(x, 0.7), model.denoiser.denoise(x, 0.7))
    low, high = again.require_noise()
    assert low == pytest.approx(0.01, rel=1e-2) and 100 < high < 200
    assert read_description(tmp_path / "pipeline")["model"]["sigma_data"] == 1.0


def rewrite(file: Path, **changed: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


@pytest.mark.parametrize(
    ("file", "changed", "sentence"),
    [
        ("model_index.json", {"vae": ["diffusers", "AutoencoderKL"]}, "pipeline of .*unet, vae"),
        (
            "model_index.json",
            {"unet": ["from_elsewhere", "Net"]},
            "from_elsewhere has not been imported.*--import",
        ),
        ("unet/config.json", {"num_class_embeds": 4}, "takes classes"),
        ("unet/config.json", {"sample_size": None}, "does not say in_channels and sample_size"),
        ("unet/config.json", {"out_channels": 2}, "answers with 2 channels to 1"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "betas of its own"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "sigmoid"}, "schedule is 'sigmoid'"),
        ("scheduler/scheduler_config.json", {"beta_end": 2.0}, "0 < beta_start, beta_end < 1"),
    ],
)
def test_what_is_no_denoiser_of_images_is_refused(
    file: str, changed: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    saved(tmp_path)
    rewrite(tmp_path / file, **changed)
    with pytest.raises(UserError, match=sentence):
        energydiff.load(tmp_path)


@pytest.mark.parametrize("missing", ["unet", "scheduler"])
def test_a_part_that_is_missing_is_named(missing: str, tmp_path: Path) -> None:
    saved(tmp_path)
    shutil.rmtree(tmp_path / missing)
    with pytest.raises(UserError, match=rf"{missing}/.* cannot be read: a pipeline needs it"):
        energydiff.load(tmp_path)


def test_weights_that_would_be_unpickled_are_left_alone(tmp_path: Path) -> None:
    pipeline = saved(tmp_path)
    (tmp_path / "unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save(pipeline.unet.state_dict(), tmp_path / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be opened"):
        energydiff.load(tmp_path)
