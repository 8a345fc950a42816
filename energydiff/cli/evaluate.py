"""Measure models: ``energydiff evaluate fid runs/a``, ``compare``, ``report``."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import yaml
from rich.console import Console

from energydiff.cli.choice import choose
from energydiff.cli.parser import Parser, function_parser, shipped, values
from energydiff.data import understood
from energydiff.errors import UserError
from energydiff.evaluation import (
    Comparison,
    EvaluationData,
    Measurement,
    OpenedModel,
    Result,
    Settings,
    compare_results,
)
from energydiff.evaluation import compare as compare_models
from energydiff.evaluation.opened import is_model
from energydiff.files import write_json
from energydiff.plain_yaml import read_yaml
from energydiff.ranks import is_first_rank
from energydiff.report.page import page_landscape, page_model, write_page
from energydiff.report.tables import comparison_table, interval_text, result_table
from energydiff.saving import read_description

CURVE = (6, 12, 18, 40)


def fid(model: Path, settings: Settings, data: EvaluationData | None = None) -> None:
    """Fréchet distance (FID on Inception), KID, Inception Score, precision and recall of samples.

    Args:
        model: A run folder, a checkpoint, an exported model, or a folder of images.
        data: YAML file of the data to measure against; the run's own data by default.
    """
    if is_model(model):
        opened = OpenedModel.at(model)
        measurement = open_measurement(data or data_of(opened), settings)
        result = measurement.measure(opened)
    elif data is None:
        raise UserError(
            f"{model} holds no model; if it holds images, give --data to measure it against."
        )
    else:
        measurement = open_measurement(data, settings)
        result = measurement.measure_images(model)
    if is_first_rank():
        file = write(settings.store, "fid", [model], asdict(result))
        print(features_line(measurement))
        Console().print(result_table(result, measurement.extractor.distance_name))
        print(f"Written to {file}.")


def compare(
    a: str,
    b: str,
    settings: Settings,
    data: EvaluationData | None = None,
    curve: tuple[int, ...] = CURVE,
    controls: bool = True,
) -> None:
    """Compare two models, or two sets of training seeds, at the same noise, with intervals.

    Args:
        a: A run folder, checkpoint or export; several training seeds separated by commas; or the
            JSON file of an earlier fid.
        b: What to compare it with, of the same kind.
        data: YAML file of the data to measure against; the data of A's run by default.
        curve: Steps at which quality is set against cost, on one block.
        controls: Also draw A with other seeds, plain and blurred.
    """
    if a.endswith(".json") or b.endswith(".json"):
        interval = compare_results(*(read_record(Path(file), Result, "fid") for file in (a, b)))
        print(f"{a} − {b}: {interval_text(interval)}: {interval.verdict}.")
        return
    first, second = open_side(a), open_side(b)
    measurement = open_measurement(data or data_of(first[0]), settings)
    tell(measurement, compare_models(measurement, first, second, curve, controls))


def report(
    models: list[str],
    settings: Settings,
    data: EvaluationData | None = None,
    out: Path = Path("report.html"),
    quality: bool = True,
    comparison: Path | None = None,
    curve: tuple[int, ...] = CURVE,
    landscape: Path | None = None,
) -> None:
    """Write one HTML page about a model, or about two side by side, with their comparison.

    Args:
        models: One or two, as for compare.
        data: YAML file of the data to measure against; the data of A's run by default.
        out: The page; it opens offline.
        quality: Also compare two models, as the command compare does.
        comparison: JSON file of an earlier compare of these two, shown instead of comparing again.
        curve: Steps at which quality is set against cost, on one block.
        landscape: Folder that energydiff landscape wrote; "landscape" in each run's by default.
    """
    if len(models) > 2:
        raise UserError(f"a page shows one model or two, not {len(models)}.")
    sides = [open_side(side) for side in models]
    compared = None if comparison is None else read_comparison(comparison, sides)
    pages = [page_model(side[0], settings) for side in sides]
    if compared is None and quality and len(sides) == 2:
        measurement = open_measurement(data or data_of(sides[0][0]), settings)
        compared = compare_models(measurement, sides[0], sides[1], curve)
        tell(measurement, compared)
    if is_first_rank():
        firsts = [side[0] for side in sides]
        folders = [(m, m.path / "landscape") for m in firsts]
        if landscape is not None:
            folders = [(firsts[0], landscape)]
        found = [
            page_landscape(folder, model.name, model.saved.normalization)
            for model, folder in folders
        ]
        pictures = {
            f"{model.name}: {file.stem.replace('_', ' ')}": file
            for model, folder in folders
            for file in sorted(folder.glob("*.png"))
        }
        write_page(pages, compared, pictures, out, [shown for shown in found if shown is not None])
        print(f"Written to {out}.")


def open_measurement(data: EvaluationData, settings: Settings) -> Measurement:
    """The extractor and the reference; says what was understood of the data."""
    measurement = Measurement.open(data, settings)
    if is_first_rank():
        print(understood(measurement.splits))
    return measurement


def open_side(paths: str) -> list[OpenedModel]:
    """One model, or several training seeds separated by commas."""
    found = split_paths(paths)
    for path in found:
        if not is_model(path):
            raise UserError(
                f"{path} holds no model; images of a folder share no noise with a model's samples:"
                " measure two folders with fid (energydiff sample makes one of a model) and compare"
                " the two JSON files."
            )
    return [OpenedModel.at(path) for path in found]


def split_paths(text: str) -> list[Path]:
    """Paths separated by commas; a comma within the name of something that exists is its own."""
    parts, found = text.split(","), []
    while parts:
        lengths = range(len(parts), 0, -1)
        length = next((n for n in lengths if Path(",".join(parts[:n])).exists()), 1)
        found.append(Path(",".join(parts[:length])))
        parts = parts[length:]
    return found


def data_of(model: OpenedModel) -> EvaluationData:
    """The data that a model was trained on."""
    return EvaluationData.of_run(model.saved.config, model.path)


def tell(measurement: Measurement, comparison: Comparison) -> None:
    """Write and print a comparison, on the first rank."""
    if is_first_rank():
        runs = [Path(run) for arm in (comparison.a, comparison.b) for run in arm.runs]
        file = write(measurement.settings.store, "compare", runs, comparison.as_dict())
        print(features_line(measurement))
        Console().print(comparison_table(comparison, measurement.extractor.distance_name))
        print(f"Written to {file}.")


def features_line(measurement: Measurement) -> str:
    """What is compared with what, and in whose features, to be checked against what others use."""
    extractor, reference = measurement.extractor, measurement.reference
    return (
        f"{measurement.settings.num_samples:,} samples against {reference.count:,} reference"
        f" images\nFeatures of {extractor.name}, SHA-256 {extractor.digest};"
        f" resize: {extractor.resize}."
    )


def write(store: Path, kind: str, paths: Sequence[Path], content: dict[str, Any]) -> Path:
    """Write a result under a name of its own: the models', and a hash of all it depends on."""
    key = json.dumps([[str(p.resolve()) for p in paths], content["provenance"]], sort_keys=True)
    names = "_".join(path.resolve().name for path in paths)
    file = store / f"{kind}_{names}_{sha256(key.encode()).hexdigest()[:8]}.json"
    write_json(file, content)
    return file


Record = TypeVar("Record", Result, Comparison)


def read_record(file: Path, kind: type[Record], command: str) -> Record:
    """What an earlier ``fid`` or ``compare`` wrote."""
    try:
        return kind.from_dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(
            f"{file} is not a result of energydiff evaluate {command} ({error})."
        ) from error


def read_comparison(file: Path, sides: Sequence[Sequence[OpenedModel]]) -> Comparison:
    """An earlier comparison of these models."""
    found = read_record(file, Comparison, "compare")
    then = [[str(Path(run).resolve()) for run in arm.runs] for arm in (found.a, found.b)]
    now = [[str(model.path.resolve()) for model in side] for side in sides]
    if then != now:
        told = " with ".join(",".join(arm.runs) for arm in (found.a, found.b))
        raise UserError(f"{file} compares {told}, not the models of this page, in this order.")
    return found


def with_own_data(parser: Parser, arguments: Sequence[str]) -> list[str]:
    """The command line, its ``--data`` made whole: what it does not name is the run's own.

    Options like ``--data.extractor``, and a data file without a source, change a description; that
    is the one recorded in the (first) model, never a data set that nobody named.

    Raises:
        UserError: there is no description that they could change.
    """
    overrides = [name.partition("=")[0] for name in arguments if name.startswith("--data.")]
    file = next(values(arguments, "--data"), None)
    partial = {} if file is None else _data_file(file)
    asks = any(name.endswith(".help") for name in overrides)
    if (file is None and not overrides) or "source" in partial or asks:
        return list(arguments)
    given = parser.parse_args(_without(arguments, lambda name: name.split(".")[0] == "--data"))
    first = given["models"][0] if "models" in given else given.get("a") or given["model"]
    path = split_paths(str(first))[0]
    config = read_description(Path(path)).get("config", {}) if is_model(path) else {}
    if "data" in config:
        known = EvaluationData.recorded(config, path) | partial
        others = _without(arguments, lambda name: name == "--data")
        return [f"--data={json.dumps(known)}", *others]
    if "--data.source" in overrides:
        return list(arguments)
    raise UserError(
        f"{path} does not say what data it was trained on, and no source is named: give one in the"
        " --data file or as --data.source."
    )


def _without(arguments: Sequence[str], taken: Callable[[str], bool]) -> list[str]:
    """A command line without the options of these names, and without their values."""
    kept, rest = [], iter(arguments)
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if not taken(name):
            kept.append(argument)
        elif not equals:
            next(rest, None)
    return kept


def _data_file(file: str) -> dict[str, Any]:
    """What a data file says; one that cannot be read is left to the parser to refuse."""
    try:
        text = file if file.startswith("{") else Path(shipped(file)).read_text(encoding="utf-8")
        found = read_yaml(text, file)
    except (OSError, ValueError, yaml.YAMLError):
        found = None
    return found if isinstance(found, dict) else {"source": None}


def main(arguments: Sequence[str]) -> int:
    """0."""
    functions: dict[str, Callable[..., object]] = {"fid": fid, "compare": compare, "report": report}
    told = {name: (f.__doc__ or "").split("\n")[0] for name, f in functions.items()}
    name = choose("energydiff evaluate", told, "".join(arguments[1:2]))
    prog, several = f"energydiff evaluate {name}", name == "report"
    skipped = {"settings", "models"} if several else {"settings"}
    usage = {"fid": "MODEL", "compare": "A B", "report": "MODEL [MODEL]"}[name]
    parser = function_parser(functions[name], prog, skipped, usage)
    if several:
        parser.add_argument("models", type=str, nargs="+", help="One model, or two.")
    parser.add_argument(
        "-n",
        "--num_samples",
        type=int,
        default=2_000 if several else Settings.num_samples,
        help="How many samples.",
    )
    parser.add_class_arguments(Settings, as_group=False, skip={"num_samples"})
    completed = with_own_data(parser, arguments[2:])
    given = parser.instantiate(parser.parse_args(completed)).as_dict()
    settings = Settings(**{field.name: given.pop(field.name) for field in fields(Settings)})
    functions[name](settings=settings, **given)
    return 0
