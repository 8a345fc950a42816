"""Keeps Lightning's console output to what concerns the run."""

import logging
import warnings

_NOISE = ("Tip: For seamless cloud", "GPU available: False", "TPU available: False")
_HARMLESS = (
    r".*treespec, LeafSpec.*",  # a deprecation inside Lightning itself
    r"predict returned None.*",  # samples are kept by the module
    r".*does not have many workers.*",  # arrays need none, and the data module sees to pictures
    r"Checkpoint directory .* exists and is not empty.*",  # that is how a run resumes
    r"Be aware that when using `ckpt_path`.*",  # callbacks may be left out of a run that goes on
    r"FSDP2-wrapped module .* returned a view.*",  # what parts of networks return is not changed
    r".*Trying to infer the `batch_size`.*",
    r"It is recommended to use `self\.log\('step'.*",  # which is the same on all ranks
)


def quiet_lightning() -> None:
    """Drop advertisements, what is not there, and warnings about what is meant to be so."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(noise in record.getMessage() for noise in _NOISE)
    )
    for message in _HARMLESS:
        warnings.filterwarnings("ignore", message=message)
