"""What ``python *arguments`` does in a folder, in a process forked from one with the imports done.

Run by path with ``arguments``, ``folder``, ``variables`` and ``out``, ``err`` (files) as globals.
Where the first argument is ``energydiff``, it is the installed command, which has not the folder
on its path.
"""

import os
import runpy
import sys
from pathlib import Path

import torch

arguments: list[str] = globals()["arguments"]
folder: Path = globals()["folder"]
variables: dict[str, str] = globals()["variables"]

for descriptor, name in ((1, "out"), (2, "err")):
    with globals()[name].open("wb") as file:
        os.dup2(file.fileno(), descriptor)
os.chdir(folder)
os.environ.clear()
os.environ.update(variables)
torch.set_num_threads(1)
sys.path[:] = [*filter(None, variables.get("PYTHONPATH", "").split(os.pathsep)), *sys.path]
sys.path[:] = [place for place in sys.path if place]
first, *rest = sys.argv = arguments
if first == "energydiff":
    from energydiff.cli import main

    sys.exit(main())
sys.path.insert(0, str(folder))
if first == "-c":
    sys.argv = ["-c"]
    exec(compile(rest[0], "<snippet>", "exec"), {"__name__": "__main__"})
elif first == "-m":
    sys.argv = rest
    runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(first, run_name="__main__")
