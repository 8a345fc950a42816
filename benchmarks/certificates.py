"""What is proved, enforced and observed, of every shipped configuration.

    python -m benchmarks.certificates [NAME=RUN ...]

Prints the table of docs/certificates.md: the claims as the samplers themselves make them. With
runs, or exports, also how often V rises along Euler's method, Heun's and a guard of Euler's that
asks for the total.
"""

import argparse
from pathlib import Path

import torch
import yaml

from energydiff.denoisers import build_denoiser
from energydiff.energies import Denoiser, GaussianMixture
from energydiff.errors import sentences
from energydiff.potentials import MLP, EnergyTransformer, InputConvex, NaturalConvex, Network
from energydiff.progress import progress
from energydiff.sampling import (
    Armijo,
    Euler,
    Guarded,
    Heun,
    Sampler,
    certify,
    karras_sigmas,
)
from energydiff.saving import open_model

LEVELS = (10.0, 1.0)
STEPS = (6, 18, 64)
NETWORKS: dict[str, type[Network]] = {
    "scalar": EnergyTransformer,
    "convex": InputConvex,
    "natural": NaturalConvex,
}
HEAD = (
    "| configuration | parametrization | `euler` | `heun` | `guarded_euler` | the same, `total` |"
)


def main() -> None:
    """Print claims, and counts if there are runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="NAME=RUN", help="trained models to count on")
    parser.add_argument("--samples", type=int, default=128, help="trajectories per sampler")
    options = parser.parse_args()
    with sentences():
        print("\n".join(claims_table()))
        with progress("Counting rises", len(options.runs)) as tell:
            for done, named in enumerate(options.runs, start=1):
                name, _, run = named.rpartition("=")
                print(f"| {name or run} | {' | '.join(counts(Path(run), options.samples))} |")
                tell(done)


def claims_table() -> list[str]:
    """In Markdown: V, descent and landscape part, one line per kind of claim."""
    lines = [HEAD, "|---|---|---|---|---|---|"]
    lines.append(
        _line("closed forms: mixtures, data sets", "–", GaussianMixture(torch.zeros(1, 2)))
    )
    kinds: dict[str, list[str]] = {}
    for file in sorted(Path("configs").rglob("*.yaml")):
        model = (yaml.safe_load(file.read_text()) or {}).get("model")
        if isinstance(model, dict) and "parametrization" in model:
            name = str(file.relative_to("configs").with_suffix(""))
            kinds.setdefault(model["parametrization"], []).append(f"`{name}`")
    for parametrization, names in sorted(kinds.items()):
        lines.append(_line(", ".join(names), f"`{parametrization}`", tiny(parametrization)))
    return lines


def tiny(parametrization: str) -> Denoiser:
    """An untrained model: claims follow from the construction."""
    network = NETWORKS.get(parametrization, MLP)
    return build_denoiser(network((1, 4, 4)), 0.5, parametrization)


def samplers(steps: int, low: float, high: float) -> list[Sampler]:
    """Those of the table."""
    sigmas = karras_sigmas(steps, low, high)
    plain = Euler(sigmas, final_denoise=True)
    guards = [Guarded(plain), Guarded(plain, total=True)]
    return [plain, Heun(sigmas, final_denoise=True), *guards]


def counts(run: Path, samples: int) -> list[str]:
    """Rises of V over steps, for each sampler of the table."""
    model = open_model(run).denoiser
    found = []
    for kind in range(4):
        rises = steps = 0
        for count in STEPS:
            sampler = samplers(count, *model.require_noise())[kind]
            certificate = certify(sampler(model, seeds=range(samples)).trace)
            rises, steps = rises + certificate.rises, steps + certificate.steps
        found.append(f"{rises:,} of {steps:,}")
    return found


def _line(names: str, parametrization: str, model: Denoiser) -> str:
    cells = ["no energy"] * 4
    if model.noise_blind:
        claim = Armijo().claims(model).total
        cells = [f"{claim} by `armijo`, at one σ", "–", "–", "–"]
    elif model.energy is not None:
        cells = [_said(s.claims(model)) for s in samplers(2, *sorted(LEVELS))]
    return f"| {names} | {parametrization} | {' | '.join(cells)} |"


def _said(claims: tuple[str, str, str]) -> str:
    """Once where all are one."""
    return claims[0] if len(set(claims)) == 1 else ", ".join(claims)


if __name__ == "__main__":
    main()
