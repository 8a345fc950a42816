"""What a run folder or an export says of a training, beside the weights."""

from pathlib import Path

from energydiff.saving import CHECKPOINT_KEY, checkpoint_of, read_checkpoint, read_description


def run_name(path: str | Path) -> str:
    """What a page that is sent calls a model: its folder's name, with what follows of a file's."""
    path = Path(path).resolve()
    return "/".join(path.parts[-3:]) if path.suffix == ".ckpt" else path.name


def read_training(path: Path) -> tuple[int | None, dict[str, str]]:
    """Images seen, ``None`` where only an export is left, and versions of the packages at work.

    Args:
        path: a run folder, a checkpoint or an export, one that ``open_model`` has opened.
    """
    file = checkpoint_of(path)
    checkpoint = {} if file is None else read_checkpoint(file, mmap=True)
    described = read_description(path) if file is None else checkpoint[CHECKPOINT_KEY]
    versions = {name: str(v) for name, v in described.get("versions", {}).items()}
    steps = checkpoint.get("global_step")
    batch = described.get("config", {}).get("data", {}).get("batch_size")
    return (steps * batch if batch and steps else None), versions
