"""``python -m energydiff``: the same as the command ``energydiff``."""

import sys

from energydiff.cli import main

if __name__ == "__main__":
    sys.exit(main())
