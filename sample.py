"""Sample a model: ``python sample.py RUN --out out/``, the same as ``energydiff sample RUN …``."""

import sys

from energydiff.cli import main

if __name__ == "__main__":
    sys.exit(main(["sample", *sys.argv[1:]]))
