"""What a run that goes on takes anew, keeps and refuses, setting by setting: see docs/train.md."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from energydiff.data import Normalization
from energydiff.data.source import Source, hash_name
from energydiff.errors import UserError
from energydiff.saving import SavedModel
from energydiff.training.stretches import SEPARATOR

# How the run is carried out and watched: changed freely.
FREE = (
    *("trainer", "monitor", "finish", "init", "import", "ckpt_path", "changed"),
    *("val_every_images", "checkpoint_every_images", "keep_every_images", "keep_best"),
    *("model.compile", "data.num_workers", "data.source.root", "data.source.on_error"),
    "teacher.path",
)
# How weights are moved from now on: changed, and recorded with the images seen until then.
RECORDED = (
    *("model.learning_rate", "model.betas", "model.weight_decay", "model.schedule"),
    *("model.warmup_images", "model.total_images", "model.teacher_share"),
    "model.stable_targets",
    *("ema", "train_images", "train_names"),
    *("trainer.precision", "trainer.gradient_clip_val"),
)
# Without bearing on a held-out loss.
UNMEASURED = ("data.batch_size", "data.flip", "seed_everything", "teacher", *RECORDED)

# What is estimated from the data where nothing is given, or true for whatever it is, by its place
# in a configuration.
ESTIMATES = (
    ("data", "sigma_data"),
    ("data", "source", "init_args", "value_range"),
    ("data", "source", "init_args", "standardize"),
)


def recorded_changes(then: Mapping[str, Any], now: Mapping[str, Any], file: str) -> list[Any]:
    """The settings in which a run's configuration differs from that of its checkpoint, as
    ``{"setting", "from", "to"}``, for the record.

    Raises:
        UserError: one that a run keeps to its end differs.
    """
    changes = []
    for name, old, new in _differences(then, now):
        if _among(RECORDED, name):
            changes.append({"setting": name, "from": old, "to": new})
        elif not _among(FREE, name):
            raise UserError(
                f"{file} was trained with {name} {_short(old)}, not {_short(new)}, and a run keeps"
                " that to its end: keep the value, or choose another trainer.default_root_dir"
                " (there, --init starts from trained weights)."
            )
    return changes


def require_measurable(then: Mapping[str, Any], now: Mapping[str, Any], file: str) -> None:
    """``UserError`` if the held-out loss configured is not that of the run."""
    for name, old, new in _differences(then, now):
        if not _among((*FREE, *UNMEASURED), name):
            raise UserError(
                f"{file} was trained with {name} {_short(old)}, not {_short(new)}: its held-out"
                " loss would be another; keep the value."
            )


@contextmanager
def estimates_of(run: Mapping[str, Any], config: Any) -> Iterator[None]:
    """Inside, what a configuration leaves to be estimated is what was estimated for the run.

    An image more or less in the data must not make another model of it.
    """
    filled = {}
    for place in ESTIMATES:
        name, value = ".".join(place), _at(run, place)
        if value is not None and name in config and _open(config[name]):
            filled[name] = config[name]
            config[name] = _tuples(value)
    try:
        yield
    finally:
        for name, asked in filled.items():
            config[name] = asked


def estimates_with(first: SavedModel) -> dict[str, Any]:
    """Of a run that begins with another model: the coordinates are that model's, as estimated for
    it, where no configuration says otherwise."""
    moments = first.normalization.plain().get("moments")
    return {
        "data": {
            "sigma_data": first.denoiser.describe().get("sigma_data"),
            "source": {"init_args": {"standardize": moments}},
        }
    }


def record_estimates(
    config: dict[str, Any], sigma_data: float, normalization: Normalization
) -> None:
    """Put what was estimated from the data into a run's record, in place."""
    plain = normalization.plain()
    values = sigma_data, [plain["low"], plain["high"]], plain.get("moments")
    for place, value in zip(ESTIMATES, values, strict=True):
        holder = _at(config, place[:-1])
        if isinstance(holder, dict) and _open(holder.get(place[-1], False)):
            holder[place[-1]] = value


def record_samples(config: dict[str, Any], source: Source) -> None:
    """Put into a run's record how many samples it is trained on, and a digest of their names."""
    config["train_images"] = len(source)
    config["train_names"] = f"{hash_name(SEPARATOR.join(source.names)):016x}"


def _open(value: Any) -> bool:
    """Whether a setting leaves to the data what it is."""
    return value is None or value is True


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _at(config: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    found: Any = config
    for name in place:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _differences(
    then: Mapping[str, Any], now: Mapping[str, Any], inside: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Name, old and new value of what both have and has changed, as it is spelled in options."""
    for key in filter(then.__contains__, now):
        name = inside if key == "init_args" else f"{inside}.{key}".removeprefix(".")
        old, new = then[key], now[key]
        both = isinstance(old, Mapping) and isinstance(new, Mapping)
        if both and old.get("class_path") == new.get("class_path"):
            yield from _differences(old, new, name)
        elif old != new:
            yield name, old, new


def _among(settings: tuple[str, ...], name: str) -> bool:
    return any(name == setting or name.startswith(f"{setting}.") for setting in settings)


def _short(value: Any) -> Any:
    return value["class_path"] if isinstance(value, Mapping) and "class_path" in value else value
