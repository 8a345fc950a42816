"""``energydiff sample`` that says how much memory it took at most, or is killed.

``python watched_sample.py KILLED_AT ARGUMENTS``: each process ends in that batch of its own, when
the images are written and the part is not; in none for a negative number.
"""

import energydiff  # noqa: F401

# isort: split
import os
import resource
import signal
import sys

from energydiff.cli import main
from energydiff.report import sample_set

write_part = sample_set._write_part
killed_at = int(sys.argv[1])
written = 0


def counted(*arguments: object) -> None:
    global written
    if written == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)
    written += 1
    write_part(*arguments)


if __name__ == "__main__":
    sample_set._write_part = counted
    code = main(sys.argv[2:])
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # KiB
    sys.exit(code)
