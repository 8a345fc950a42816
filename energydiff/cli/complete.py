"""Masked completion: ``energydiff complete fit`` trains, ``energydiff complete RUN`` fills."""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.table import Table

from energydiff.cli.parser import function_parser
from energydiff.cli.training import EnergyDiffCLI
from energydiff.completion import complete
from energydiff.completion.figure import completion_figure
from energydiff.completion.fillings import fill_from_nearest, fill_with_mean, missing_error
from energydiff.completion.training import CompletionModule, open_completion
from energydiff.data.split import require_held_out
from energydiff.errors import UserError
from energydiff.files import write_arrays, write_json
from energydiff.random import PROBE, keyed_normal
from energydiff.sampling import certify, join_traces
from energydiff.sampling.words import verdict
from energydiff.training.data import DiffusionData

SHOWN = 10


def fill(
    run: Path,
    shares: tuple[float, ...] = (0.25, 0.5, 0.75),
    seed: int = 0,
    out: Path = Path("out"),
) -> None:
    """Complete every held-out image of a run's data, and compare with two fillings without a model.

    Writes completion.png, errors.json, certificate.json and completions.npz.

    Args:
        run: A run folder of ``energydiff complete fit``.
        shares: Shares of patches to hide, each in turn.
        seed: Of the choice of hidden patches.
        out: Folder to write into.
    """
    if not shares or not all(0 < share < 1 for share in shares):
        raise UserError(f"shares {list(shares)} must lie between 0 and 1, and be at least one.")
    network, config = open_completion(run)
    data = DiffusionData.of_run(config)
    print(data.understood)
    train = data.train_source.clean()
    x = require_held_out(data.held_out_source, "completion").clean()
    scores = keyed_normal(seed, range(len(x)), network.shape, PROBE)
    errors, traces, arrays = [], [], {"images": x.numpy()}
    for share in shares:
        hidden = network.hide(scores, torch.full((len(x),), share))
        missing = network.pixels(hidden)
        result = complete(network, x, hidden)
        fillings = {
            "energy block": result.samples,
            "nearest": fill_from_nearest(x, missing, train),
            "mean image": fill_with_mean(x, missing, train),
        }
        for name, filled in fillings.items():
            squared, absolute = (missing_error(filled, x, missing, power) for power in (2, 1))
            errors.append(
                {
                    "share": share,
                    "filling": name,
                    "mean squared error": float(squared.mean()),
                    "mean absolute error": float(absolute.mean()),
                    "images won by the block": float(
                        (missing_error(result.samples, x, missing) < squared).float().mean()
                    ),
                }
            )
        traces.append(result.trace)
        arrays |= {
            f"missing_{share:g}": missing.numpy(),
            f"filled_{share:g}": result.samples.numpy(),
        }
        if share == shares[len(shares) // 2]:
            rows = torch.linspace(0, len(x) - 1, min(SHOWN, len(x))).long()
            picture = (x[rows], missing[rows], {n: f[rows] for n, f in fillings.items()})
    trace = join_traces(traces)
    certificate = certify(trace)
    settings = {"model": str(run), "steps": network.steps, "seed": seed, "shares": list(shares)}
    assert trace.fallbacks is not None
    tries = int((1 + trace.fallbacks.amax(1)).sum())
    cost = {"nfe": network.steps + 1, "energy_evaluations": tries}
    about = certificate.as_dict() | cost | {"settings": settings}
    write_json(out / "certificate.json", about)
    completion_figure(*picture, trace, data.normalization, out / "completion.png")
    arrays |= {name: array.numpy() for name, array in trace.arrays().items()}
    write_arrays(out / "completions.npz", arrays)
    write_json(out / "errors.json", errors)
    table = Table(title=f"{len(x)} held-out images, hidden pixels only, in {out}")
    for column in errors[0]:
        table.add_column(column)
    for row in errors:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    said = f"The certificate {verdict(certificate, 'E')}"
    table.caption = f"{said} {certificate.fallbacks:,} steps were shortened."
    Console().print(table)


class CompletionCLI(EnergyDiffCLI):
    """``energydiff complete fit|validate|test`` over :class:`CompletionModule`."""

    module = CompletionModule
    prog = "energydiff complete"
    examples = ("--config configs/digits/completion.yaml",)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        self.add_stream_arguments(parser)
        parser.link_arguments("data.shape", "model.network.init_args.shape", apply_on="instantiate")
        parser.link_arguments("data.normalization", "model.normalization", apply_on="instantiate")


def main(arguments: Sequence[str]) -> int:
    """0."""
    given = arguments[1:]
    if given[:1] and given[0] in ("fit", "validate", "test"):
        CompletionCLI(given[0], given[1:]).go()
        return 0
    parser = function_parser(fill, "energydiff complete", usage="RUN")
    parser.epilog = "A run comes from energydiff complete fit: see energydiff complete fit --help."
    fill(**parser.parse_args(given).as_dict())
    return 0
