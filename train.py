"""Train a model: ``python train.py fit --config configs/digits/energy_unet.yaml``."""

import energydiff  # noqa: F401  (first: it makes lightning importable beside a CPU torch)
from energydiff.errors import sentences
from energydiff.training import EnergyDiffCLI

if __name__ == "__main__":
    with sentences():
        EnergyDiffCLI()
