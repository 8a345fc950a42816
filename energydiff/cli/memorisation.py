"""A study of memorising: ``energydiff memorisation --config configs/memorisation/digits.yaml``."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from energydiff.cli.parser import Parser, shipped, values
from energydiff.cli.training import EnergyDiffCLI
from energydiff.data import Splits
from energydiff.errors import UserError
from energydiff.memorisation import Design, Looks, Study
from energydiff.memorisation.looking import data_of
from energydiff.report.memorisation import write_study

PROG = "energydiff memorisation"


def memorisation(
    experiment: list[str],
    fit: Sequence[str],
    design: Design,
    looks: Looks,
    *,
    sigma: float | None = None,
    jobs: int = 1,
    dry_run: bool = False,
    out: Path = Path("out/memorisation"),
) -> None:
    """Train on nested subsets of many sizes and sort what is generated: memorised, spurious or
    generalised.

    Every training is an ordinary run of energydiff fit, in runs/ of the folder. study.json, figures
    and a page follow. The same command goes on from where it was interrupted; sizes, seeds and
    halves may be added.
    """
    shared = [part for file in experiment for part in ("--config", shipped(file))] + [*fit]
    study = Study(design, looks, shared, _splits(shared, out), out, jobs, _imports(shared), sigma)
    if dry_run:
        _try(study)
        return
    for sentence in _duplicates(study):
        print(sentence)
    try:
        study.train()
        record = study.look()
    finally:
        study.account()
    Console().print(_table(record))
    for sentence in write_study(record, study.folder):
        print(sentence)


def _splits(arguments: Sequence[str], out: Path) -> Splits:
    """All the data of the experiment, which is read as fit would read it."""
    asked = EnergyDiffCLI("fit", [*arguments, "--trainer.default_root_dir", str(out / "none")])
    if asked.config.data.subset is not None:
        raise UserError("a study chooses the subsets itself: leave data.subset out.")
    splits = data_of(asked.model.config, out)
    if not len(splits.held_out):
        raise UserError(
            "a study needs held-out images, by which its thresholds are chosen, and"
            " data.source.held_out is 0."
        )
    return splits


def _imports(arguments: Sequence[str]) -> tuple[str, ...]:
    return tuple(values(arguments, "--import"))


def _try(study: Study) -> None:
    """Two steps of the smallest and the largest training, and what all would be."""
    runs = study.design.runs()
    for run in (runs[0], max(runs, key=lambda run: run.images)):
        arguments = [*study.arguments(run), "--trainer.fast_dev_run", "2"]
        arguments += ["--trainer.default_root_dir", str(study.folder / "dry_run" / run.name)]
        command = [sys.executable, "-m", "energydiff", "fit", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"{run.name}: {done.stderr.strip().splitlines()[-1]}")
        print(f"{run.name}: two steps ran.")
    print(f"{len(runs)} trainings of energydiff fit {shlex.join(study.fit)}:")
    print(", ".join(run.name for run in runs))


def _duplicates(study: Study) -> list[str]:
    """What is to be known of the data before they are trained on."""
    found, rule = study.duplicates(), study.rules["pixels"]
    said = (
        f"Of {found['searched']:,} training images {found['equal']:,} equal another, and"
        f" {found['near']:,} pairs are nearer than {rule.memorised:.3g}, which counts as a copy."
    )
    return [said] + [f"  {a} and {b}: {d:.3g}" for a, b, d in found["pairs"][:5]]


def _table(record: dict[str, Any]) -> Table:
    table = Table(title="share of samples, mean of seeds (held-out images under the same rule)")
    for column in ("images", "memorised", "spurious", "generalised", "copies, d1/d2 < 1/3"):
        table.add_column(column)
    main = len(record["design"]["sizes"]) * len(record["design"]["seeds"])
    for row in record["summary"]["pixels"]["shares"]:
        runs = [run for run in record["runs"][:main] if run["images"] == row["images"]]
        copies = [run["spaces"]["pixels"]["samples"]["copies"] for run in runs]
        known = [value for value in copies if value is not None]
        table.add_row(
            f"{row['images']:,}",
            *(
                f"{row['samples'][name]['mean']:.3f} ({row['held_out'][name]['mean']:.3f})"
                for name in ("memorised", "spurious", "generalised")
            ),
            f"{sum(known) / len(known):.3f}" if known else "-",
        )
    return table


def main(arguments: Sequence[str]) -> int:
    """0."""
    given = list(arguments[1:])
    end = given.index("--") if "--" in given else len(given)
    parser = Parser(
        prog=PROG,
        usage=f"{PROG} --config FILE [--NAME VALUE …] [-- ARGUMENTS OF energydiff fit]",
        description=" ".join((memorisation.__doc__ or "").split()),
    )
    parser.add_argument("--config", action="config", help="A file with these options.")
    parser.add_argument(
        "--experiment", type=list[str], help="Configurations of energydiff fit, as for --config."
    )
    parser.add_class_arguments(Design, as_group=False)
    parser.add_class_arguments(Looks, as_group=False)
    for name, kind, default, told in (
        ("sigma", float | None, None, "Noise of states and minima; chosen if not given."),
        ("jobs", int, 1, "Trainings at a time."),
        ("dry_run", bool, False, "Try two steps of the smallest and largest training alone."),
        ("out", Path, Path("out/memorisation"), "Folder to write into."),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=told)
    read = parser.instantiate(parser.parse_args([shipped(a) for a in given[:end]])).as_dict()
    read.pop("config", None)
    if not read["experiment"]:
        raise UserError(f"{PROG} needs --experiment, a configuration of energydiff fit.")
    design, looks = Design(**_taken(read, Design)), Looks(**_taken(read, Looks))
    memorisation(fit=given[end + 1 :], design=design, looks=looks, **read)
    return 0


def _taken(options: dict[str, Any], kind: type) -> dict[str, Any]:
    """The options that are fields of a kind, taken out; lists made tuples."""
    found = {f.name: options.pop(f.name) for f in fields(kind)}
    return {n: tuple(v) if isinstance(v, list) else v for n, v in found.items()}
