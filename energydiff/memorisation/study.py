"""The study: trainings on nested subsets of many sizes and seeds, all looked at in one way."""

import json
import multiprocessing
import resource
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from energydiff.data import Splits
from energydiff.errors import UserError
from energydiff.evaluation import open_extractor
from energydiff.evaluation.logged import read_metrics
from energydiff.evaluation.neighbours import nearest_neighbours
from energydiff.evaluation.reference import reference_features
from energydiff.files import write_json
from energydiff.memorisation.design import Design, Run
from energydiff.memorisation.looking import (
    PIXELS,
    Looks,
    beside,
    followed,
    kept,
    measured_run,
    scanned_run,
    sorted_run,
)
from energydiff.memorisation.phases import Rule, without_copies
from energydiff.memorisation.summary import resting_noise, summary, time_table
from energydiff.memorisation.times import BEGUN
from energydiff.memorisation.trainings import train_missing
from energydiff.progress import progress, with_progress
from energydiff.registry import import_modules

SEARCHED = 20_000  # training images among which duplicates are looked for


@dataclass(frozen=True)
class Study:
    """A study in a folder; the same one goes on from where it was cut off.

    Attributes:
        design, looks: what is trained, and how it is looked at.
        fit: arguments of ``energydiff fit`` that all runs share.
        splits: all the data.
        folder: ``runs/`` and ``study.json`` go there.
        jobs: trainings, or runs looked at, at a time.
        imports: modules of the user's own.
        sigma: noise at which states and minima are looked at; see :func:`resting_noise`.
    """

    design: Design
    looks: Looks
    fit: Sequence[str]
    splits: Splits
    folder: Path
    jobs: int = 1
    imports: tuple[str, ...] = ()
    sigma: float | None = None

    def __post_init__(self) -> None:
        self.design.require(len(self.splits.train))
        if self.jobs < 1:
            raise UserError(f"jobs is {self.jobs}; at least one works at a time.")
        settings = {"fit": list(self.fit)}
        file = self.folder / "settings.json"
        if file.is_file() and json.loads(file.read_text()) != settings:
            raise UserError(
                f"{self.folder} holds a study of other trainings (energydiff fit"
                f" {' '.join(json.loads(file.read_text())['fit'])}): give another --out."
            )
        write_json(file, settings)

    def place(self, run: Run) -> Path:
        """Its run folder."""
        return self.folder / "runs" / run.name

    @cached_property
    def control(self) -> torch.Tensor:
        """Held-out images that thresholds are chosen by, (n, \\*shape)."""
        return self.splits.held_out.spread(self.looks.samples).clean()

    @cached_property
    def rules(self) -> dict[str, Rule]:
        """Thresholds in pixels and in features, from all training images and the held-out ones."""

        def find() -> dict[str, Any]:
            share, samples = self.looks.share, self.looks.samples
            rules = {PIXELS: Rule.calibrated(self.control, self.splits.train, share, samples)}
            for name in self.looks.features:
                extractor = open_extractor(
                    name, train=self.splits.train, held_out=self.splits.held_out
                )
                held_out, train = (
                    reference_features(source, extractor).features
                    for source in (self.splits.held_out.spread(samples), self.splits.train)
                )
                rules[name] = Rule.calibrated(held_out, train, share, samples)
            return {name: asdict(rule) for name, rule in rules.items()}

        settings = {"features": self.looks.features, "share": self.looks.share}
        found = kept(self.folder / "rules.json", settings | self._data(), find)
        return {name: Rule(**rule) for name, rule in found.items()}

    @cached_property
    def watching(self) -> Rule:
        """Thresholds of the looks during training, which are at fewer samples."""
        count = min(self.design.watched, len(self.control))
        settings = {"share": self.looks.share, "watched": count} | self._data()

        def find() -> dict[str, Any]:
            train = self.splits.train
            return asdict(Rule.calibrated(self.control, train, self.looks.share, count))

        return Rule(**kept(self.folder / "watching.json", settings, find))

    def duplicates(self) -> dict[str, Any]:
        """Copies in the data: equal images, and pairs nearer than δ_m, of 20,000 at most."""
        train, rule = self.splits.train.spread(SEARCHED), self.rules[PIXELS]

        def find() -> dict[str, Any]:
            distinct = without_copies(train)
            near = nearest_neighbours(distinct.clean(), distinct, 1, others_but_itself=True)
            found = zip(near.distance[:, 0].tolist(), near.index[:, 0].tolist(), strict=True)
            pairs = {
                (d, min(i, j), max(i, j)) for i, (d, j) in enumerate(found) if d <= rule.memorised
            }
            names, unique = [str(name) for name in distinct.names], sorted(pairs)
            return {
                "searched": len(train),
                "equal": len(train) - len(distinct),
                "near": len(unique),
                "pairs": [[names[i], names[j], d] for d, i, j in unique[:100]],
            }

        return kept(self.folder / "duplicates.json", asdict(rule) | self._data(), find)

    def arguments(self, run: Run) -> list[str]:
        """Of ``energydiff fit``."""
        subset = {"images": run.images, "seed": run.seed, "skip": run.skip}
        arguments = [*self.fit, "--seed_everything", str(run.seed)]
        arguments += ["--data.subset", json.dumps(subset)]
        if self.design.watch:
            rule = self.watching
            monitor = {
                "class_path": "energydiff.training.MemorisationMonitor",
                "init_args": {
                    "at_images": list(self.design.watch),
                    "samples": rule.block,
                    "memorised": rule.memorised,
                    "spurious": rule.spurious,
                    "sampler": self.looks.sampler,
                    "steps": self.looks.steps,
                },
            }
            arguments += ["--trainer.callbacks+", json.dumps(monitor)]
        return arguments

    def train(self) -> None:
        """What is not trained yet."""
        runs = {self.place(run): self.arguments(run) for run in self.design.runs()}
        train_missing(runs, self.jobs)

    def look(self) -> dict[str, Any]:
        """Everything but the training: ``study.json``, and what it says."""
        design, rule = self.design, self.rules[PIXELS]
        runs, main = design.runs(), design.main()
        shares = self._each(
            "Sorting samples",
            sorted_run,
            [(self.place(run), self.looks, self.rules) for run in runs],
        )
        scans = self._each(
            "Letting samples down",
            scanned_run,
            [(self.place(run), self.looks, rule) for run in main],
        )
        sigma = self.sigma or resting_noise(scans)
        measured = self._each(
            "Measuring states",
            measured_run,
            [(self.place(run), self.looks, rule, sigma) for run in main],
        )
        steps = [
            (Run(small, seed), Run(large, seed))
            for seed in design.seeds
            for small, large in zip(sorted(design.sizes), sorted(design.sizes)[1:], strict=False)
        ]
        fates = self._each(
            "Following minima",
            followed,
            [
                (self.place(a), self.place(b), self.looks, rule, sigma)
                for a, b in steps
                if any(measured)
            ],
        )
        halves = self._each(
            "Comparing halves", beside, [(self.place(a), self.place(b)) for a, b in design.pairs()]
        )
        rows = [
            asdict(run) | found | {"watched": self._watched(run)}
            for run, found in zip(runs, shares, strict=True)
        ]
        for row, *found in zip(rows[: len(main)], scans, measured, strict=True):
            row |= found[0] | found[1]
        spaces = list(self.rules)
        record = {
            "fit": list(self.fit),
            "design": asdict(design),
            "looks": asdict(self.looks),
            "data": {"train": len(self.splits.train), "held_out": len(self.splits.held_out)},
            "rules": {name: asdict(one) for name, one in self.rules.items()},
            "duplicates": self.duplicates(),
            "sigma": sigma,
            "runs": rows,
            "summary": {space: summary(rows[: len(main)], space) for space in spaces},
            "times": time_table(rows[: len(main)], BEGUN),
            "fates": [
                {"seed": a.seed, "from": a.images, "to": b.images, **found}
                for (a, b), found in zip(steps, fates, strict=False)
            ],
            "halves": [
                {"images": a.images, **found}
                for (a, _), found in zip(design.pairs(), halves, strict=True)
            ],
            "processor_seconds": self.account(),
        }
        write_json(self.folder / "study.json", record)
        return json.loads((self.folder / "study.json").read_text())  # type: ignore[no-any-return]

    @property
    def _account(self) -> Path:
        return self.folder / "processor_seconds.json"

    @cached_property
    def _spent_before(self) -> float:
        return _recorded(self._account)

    def account(self) -> float:
        """Processor time that this study has taken, over all times it was started, seconds."""
        now = sum(
            used.ru_utime + used.ru_stime
            for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )
        write_json(self._account, self._spent_before + now)
        return self._spent_before + now

    def _watched(self, run: Run) -> dict[str, list[float]]:
        """What the looks during training saw."""
        series = {
            name.removeprefix("memorisation/"): points
            for name, points in read_metrics(self.place(run)).items()
            if name.startswith("memorisation/")
        }
        images = [images for images, _ in series.get("memorised", [])]
        return {"images": images} | {n: [v for _, v in points] for n, points in series.items()}

    def _data(self) -> dict[str, Any]:
        return {"train": len(self.splits.train), "held_out": len(self.splits.held_out)}

    def _each(
        self, task: str, work: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]
    ) -> list[Any]:
        """``work`` of each, in processes of one thread where several work at a time."""
        given = list(arguments)
        if self.jobs == 1:
            return [work(*one) for one in with_progress(given, len(given), task)]
        found: list[Any] = [None] * len(given)
        with (
            ProcessPoolExecutor(
                self.jobs,
                multiprocessing.get_context("spawn"),
                initializer=partial(_begin, self.imports),
            ) as pool,
            progress(task, len(given)) as tell,
        ):
            numbers = {pool.submit(work, *one): i for i, one in enumerate(given)}
            try:
                for done, one in enumerate(as_completed(numbers), start=1):
                    found[numbers[one]] = one.result()
                    tell(done)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return found


def _begin(imports: Sequence[str]) -> None:
    torch.set_num_threads(1)
    import_modules(imports)


def _recorded(file: Path) -> float:
    try:
        return float(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return 0.0
