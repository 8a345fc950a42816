"""The picture at the head of README: samples of a trained energy, each above its falling V.

``python -m benchmarks.first_screen runs/fashion_mnist/energy_unet`` draws the samples of the seeds
from 0 on, none left out, by Heun's method; a model of classes takes them in turn, guided if asked.
It writes ``docs/images/samples_28.png``: the first seven above their own V and the change of V in
each step, the rest in grey.
"""

import argparse
from pathlib import Path

from energydiff.drawing import Drawing, draw_samples
from energydiff.energies import Denoiser, Guidance
from energydiff.report import samples_with_traces
from energydiff.sampling import Heun, certify, karras_sigmas
from energydiff.saving import open_model


def main() -> None:
    """Some minutes on one core."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a run folder, checkpoint or export")
    parser.add_argument("--out", type=Path, default=Path("docs/images/samples_28.png"))
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--guidance", type=float, help="weight of classifier-free guidance")
    given = parser.parse_args()
    saved = open_model(given.model)
    model: Denoiser = saved.denoiser
    if given.guidance is not None:
        model = Guidance(model, given.guidance)
    sampler = Heun(karras_sigmas(18, *model.require_noise()), final_denoise=True)
    how = Drawing(labels=tuple(range(model.num_classes)), accelerator="cpu")
    result = draw_samples(model, sampler, range(given.samples), how)
    assert result.trace is not None
    samples_with_traces(result.samples, result.trace, saved.normalization, given.out)
    print(certify(result.trace))


if __name__ == "__main__":
    main()
