"""What training on the counted stream asks of Lightning's Trainer."""

from typing import Any

TRAINER: dict[str, Any] = {
    # Energies are differentiated in validation too. The gate copes with inference_mode, at the
    # price of copies.
    "inference_mode": False,
    "use_distributed_sampler": False,  # the stream shards itself
    "max_epochs": -1,
    "check_val_every_n_epoch": None,
    "num_sanity_val_steps": 0,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 20,
    "enable_model_summary": False,
}
