"""What ``python *arguments`` does in a folder, in a process forked from one with the imports done.

Run by path, with ``arguments``, ``folder`` and the file for its ``output`` as globals.
"""

import os
import runpy
import sys
from pathlib import Path

import torch

arguments: list[str] = globals()["arguments"]
folder: Path = globals()["folder"]
output: Path = globals()["output"]

with output.open("wb") as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
os.chdir(folder)
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(folder),
    "ENERGYDIFF_CACHE": str(folder / "cache"),
}
torch.set_num_threads(1)
sys.path.insert(0, str(folder))
first, *rest = arguments
if first == "-c":
    sys.argv = ["-c"]
    exec(compile(rest[0], "<snippet>", "exec"), {"__name__": "__main__"})
elif first == "-m":
    sys.argv = rest
    runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
else:
    sys.argv = arguments
    runpy.run_path(first, run_name="__main__")
