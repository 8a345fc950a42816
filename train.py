"""Train a model: ``python train.py fit --config …``, the same as ``energydiff fit --config …``."""

import sys

from energydiff.cli import main

if __name__ == "__main__":
    sys.exit(main())
