"""Measure models: ``energydiff evaluate fid runs/a``, ``compare``, ``report``."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

import energydiff
from energydiff.drawing.draw import is_first_rank
from energydiff.errors import UserError
from energydiff.evaluation.comparing import compare as compare_models
from energydiff.evaluation.comparing import compare_results
from energydiff.evaluation.data import EvaluationData
from energydiff.evaluation.drawing import Drawing, SamplerName
from energydiff.evaluation.measurement import Measurement, is_model
from energydiff.evaluation.records import Comparison, Result
from energydiff.files import write_whole
from energydiff.report.page import page_model, write_page
from energydiff.report.tables import comparison_table, interval_text, result_table


@dataclass(frozen=True)
class Settings:
    """How models are measured.

    Args:
        data: YAML file of the data to measure against; the run's own data by default.
        num_samples: n.
        blocks: Disjoint blocks of seeds that n falls into; intervals are taken over them.
        weights: Local file with the weights of a published extractor.
        sampler: See docs/sample.md.
        steps: Steps down Karras' grid, before a final denoising.
        seed: Of the whole set; sample i depends on (seed, i) alone.
        batch_size: Samples at a time on each device.
        devices: How many devices share the work.
        accelerator: As in Lightning: auto, cpu, gpu, mps.
        store: Folder where features and results are kept; a run that was cut off goes on there.
    """

    data: EvaluationData | None = None
    num_samples: int = 10_000
    blocks: int = 5
    weights: Path | None = None
    sampler: SamplerName = "heun"
    steps: int = 18
    seed: int = 0
    batch_size: int = 64
    devices: int = 1
    accelerator: str = "auto"
    store: Path = Path("runs/evaluation")

    @property
    def how(self) -> Drawing:
        """How samples are drawn."""
        return Drawing(
            self.sampler, self.steps, self.seed, self.batch_size, self.devices, self.accelerator
        )

    def measurement(self, path: Path) -> Measurement:
        """Data, extractor and reference, opened; the data of the model at ``path`` by default."""
        data = self.data or data_of(path)
        return Measurement.open(
            data, self.num_samples, self.blocks, self.how, self.store, self.weights
        )


def fid(model: Path, settings: Settings) -> None:
    """Fréchet distance (FID on Inception), KID, Inception Score, precision and recall of samples.

    Args:
        model: A run folder, a checkpoint, an exported model, or a folder of images.
    """
    measurement = settings.measurement(model)
    result = measurement.measure(model)
    if is_first_rank():
        file = write(settings.store, "fid", [model], asdict(result))
        print(features_line(measurement))
        Console().print(result_table(result, measurement.extractor.distance_name))
        print(f"Written to {file}.")


def compare(
    a: str,
    b: str,
    settings: Settings,
    curve: tuple[int, ...] = (6, 12, 18, 40),
    controls: bool = True,
) -> Comparison | None:
    """Compare two models, or two sets of training seeds, at the same noise, with intervals.

    Args:
        a: A run folder, checkpoint or export; several training seeds separated by commas; or the
            JSON file of an earlier fid.
        b: What to compare it with, of the same kind.
        curve: Steps at which quality is set against cost, on one block.
        controls: Also draw A with other seeds, plain and blurred.
    """
    if a.endswith(".json") or b.endswith(".json"):
        first, second = read_result(Path(a)), read_result(Path(b))
        interval = compare_results(first, second)
        print(f"{a} − {b}: {interval_text(interval)}: {interval.verdict}.")
        return None
    paths = [[Path(path) for path in side.split(",")] for side in (a, b)]
    for path in (*paths[0], *paths[1]):
        if not is_model(path):
            raise UserError(
                f"{path} holds no model; images of a folder share no noise with a model's samples:"
                " measure two folders with fid (sample.py makes one of a model) and compare the two"
                " JSON files."
            )
    measurement = settings.measurement(paths[0][0])
    comparison = compare_models(measurement, paths[0], paths[1], steps=curve, controls=controls)
    if is_first_rank():
        every = [path for side in paths for path in side]
        file = write(settings.store, "compare", every, comparison.as_dict())
        print(features_line(measurement))
        Console().print(comparison_table(comparison, measurement.extractor.distance_name))
        print(f"Written to {file}.")
    return comparison


def report(
    models: list[str],
    settings: Settings,
    out: Path = Path("report.html"),
    quality: bool = True,
    curve: tuple[int, ...] = (6, 12, 18, 40),
) -> None:
    """Write one HTML page about a model, or about two side by side, with their comparison.

    Args:
        models: One or two, as for compare. Pictures in a run's folder landscape/ are shown too.
        out: The page; it opens offline.
        quality: Also compare two models, as the command compare does.
        curve: Steps at which quality is set against cost, on one block.
    """
    if len(models) > 2:
        raise UserError(f"a page shows one model or two, not {len(models)}.")
    firsts = [Path(side.split(",")[0]) for side in models]
    pages = []
    for path in firsts:
        saved = energydiff.open_model(path)
        method = settings.how.method(saved.sigma_min, saved.sigma_max)
        pages.append(page_model(path, sampler=method, seeds=settings.how.seeds(range(16))))
    comparison = None
    if quality and len(models) == 2:
        comparison = compare(models[0], models[1], settings, curve)
    if is_first_rank():
        pictures = {
            f"{path.resolve().name}: {file.stem}": file
            for path in firsts
            for file in sorted(path.glob("landscape/*.png"))
        }
        write_page(pages, comparison, pictures, out)
        print(f"Written to {out}.")


def features_line(measurement: Measurement) -> str:
    """What is compared with what, and in whose features, to be checked against what others use."""
    extractor, reference = measurement.extractor, measurement.reference
    return (
        f"{measurement.blocks.samples:,} samples against {reference.count:,} reference images\n"
        f"Features of {extractor.name}, SHA-256 {extractor.digest}; resize: {extractor.resize}."
    )


def data_of(path: Path) -> EvaluationData:
    """The data that a model was trained on."""
    if not is_model(path):
        raise UserError(
            f"{path} holds no model; if it holds images, give --data to measure it against."
        )
    return EvaluationData.of_run(energydiff.open_model(path).config, path)


def write(store: Path, kind: str, paths: Sequence[Path], content: dict[str, Any]) -> Path:
    """Write a result under a name of its own: the models', and a hash of all it depends on."""
    key = json.dumps([[str(p.resolve()) for p in paths], content["provenance"]], sort_keys=True)
    names = "_".join(path.resolve().name for path in paths)
    file = store / f"{kind}_{names}_{sha256(key.encode()).hexdigest()[:8]}.json"
    write_whole(file, (json.dumps(content, indent=1) + "\n").encode())
    return file


def read_result(file: Path) -> Result:
    """What an earlier ``fid`` wrote."""
    try:
        return Result.from_dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{file} is not a result of evaluate.py fid ({error}).") from error


def main(arguments: Sequence[str]) -> int:
    """0."""
    parser = ArgumentParser(prog="energydiff evaluate", description=__doc__)
    commands = parser.add_subcommands(dest="command")
    functions: dict[str, Callable[..., object]] = {"fid": fid, "compare": compare, "report": report}
    for name, function in functions.items():
        command = ArgumentParser(description=(function.__doc__ or "").split("\n")[0])
        default = 2_000 if function is report else Settings.num_samples
        skipped: set[str | int] = {"settings", "models"} if function is report else {"settings"}
        command.add_argument(
            "-n", "--num_samples", type=int, default=default, help="How many samples."
        )
        if function is report:
            command.add_argument("models", type=str, nargs="+", help="One model, or two.")
        command.add_function_arguments(
            function,
            fail_untyped=True,
            as_positional=True,
            skip=skipped,
        )
        command.add_class_arguments(Settings, sub_configs=True, skip={"num_samples"})
        commands.add_subcommand(name, command)
    parsed = parser.instantiate(parser.parse_args(list(arguments[1:])))
    given = parsed[parsed.command].as_dict()
    settings = Settings(**{field.name: given.pop(field.name) for field in fields(Settings)})
    functions[parsed.command](settings=settings, **given)
    return 0
