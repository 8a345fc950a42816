"""Everything imports, alone and together, and rooms know only the rooms below them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import energydiff

PACKAGE = Path(energydiff.__file__).parent
BASE = {
    *("_torchvision", "_version", "console", "derivatives", "errors", "extras", "files"),
    *("numerals", "plain_yaml", "progress", "random", "ranks", "registry"),
}
# A room may import the base, itself and what stands here: only rooms above it in this table.
ROOMS: dict[str, set[str]] = {
    "energies": set(),
    "sampling": {"energies"},
    "memory": {"energies", "sampling"},
    "potentials": {"memory"},
    "denoisers": {"energies", "potentials"},
    "diffusion": {"energies", "denoisers"},
    "data": set(),
    "pipeline": {"energies", "potentials", "denoisers", "data"},
    "saving": {"energies", "memory", "potentials", "denoisers", "data", "pipeline"},
    "drawing": {"energies", "sampling"},
    "landscape": {"energies", "sampling", "memory"},
    "likelihood": {"energies", "diffusion", "data"},
    "evaluation": {
        *("denoisers", "sampling", "data", "saving", "drawing", "landscape", "likelihood"),
        "pipeline",
    },
    "memorisation": {
        *("energies", "sampling", "data", "saving", "drawing", "landscape", "likelihood"),
        "evaluation",
    },
    "training": {
        *("energies", "sampling", "potentials", "denoisers", "diffusion", "data", "saving"),
        *("drawing", "landscape", "likelihood", "evaluation", "memorisation"),
    },
    "checking": {"energies", "potentials", "saving", "training"},
    "report": {"sampling", "data", "saving", "landscape", "evaluation", "memorisation"},
    "completion": {"sampling", "potentials", "data", "saving", "training", "report"},
    "energydiff": {"energies", "saving"},
    "cli": {
        *(
            "energydiff",
            "energies",
            "sampling",
            "memory",
            "potentials",
            "denoisers",
            "data",
            "saving",
        ),
        *("checking", "drawing", "landscape", "evaluation", "memorisation", "training", "report"),
        "completion",
    },
    "__main__": {"cli"},
}
# What takes seconds to import, and who may: everybody else is usable without. Lightning, whose
# metrics plot, comes with matplotlib.
LIGHTNING = {"training", "completion", "cli", "energydiff.drawing.loop"}
HEAVY = {
    "lightning": LIGHTNING,
    "matplotlib": LIGHTNING | {"report"},
    "plotly": LIGHTNING | {"report"},
}
ALONE = """
import importlib, sys, types
import energydiff  # once as it is: it mends torchvision
heavy, by_face = {heavy!r}, set()
for name, room in {modules!r}:
    if name in by_face:  # the face comes first anyway, and has imported it
        continue
    for known in [m for m in sys.modules if m.partition(".")[0] == "energydiff"]:
        del sys.modules[known]
    empty = sys.modules["energydiff"] = types.ModuleType("energydiff")
    empty.__path__ = {path!r}  # its own face would import the core first
    importlib.import_module(name)
    by_face |= {{m for m in sys.modules if m.startswith(name + ".")}}
    loaded = [m for m in heavy if m in sys.modules and not heavy[m] & {{name, room}}]
    assert not loaded, f"{{name}} imports {{loaded}}"
"""


def modules() -> list[tuple[str, str, Path]]:
    """Name, room and file of every module, those without heavy imports first."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(("energydiff", *parts)).removesuffix(".__init__")
        found.append((name, name.split(".")[1] if "." in name else name, file))
    return sorted(found, key=lambda m: ([bool(may & {*m[:2]}) for may in HEAVY.values()], m))


def imported(file: Path) -> set[str]:
    """The parts of the package that a file imports anywhere in it, also for types alone."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{file} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for package, _, rest in (name.partition(".") for name in names):
            part = rest.partition(".")[0]
            if package == "energydiff":
                found.add(part if part in BASE | ROOMS.keys() else "energydiff")
    return found


def test_the_table_has_straight_arrows_only() -> None:
    above: set[str] = set()
    for room, targets in ROOMS.items():
        assert targets <= above, f"{room} imports {targets - above}, which stand below it"
        above.add(room)


@pytest.mark.parametrize("room", sorted([*ROOMS, *BASE]))
def test_a_room_imports_only_what_the_table_grants(room: str) -> None:
    files = [file for _, owner, file in modules() if owner == room]
    assert files, f"there is no {room}"
    allowed = BASE | {room} | ROOMS.get(room, set())
    wrong = {str(f.relative_to(PACKAGE)): imported(f) - allowed for f in files}
    assert not any(wrong.values()), {file: rooms for file, rooms in wrong.items() if rooms}


def test_every_room_is_in_the_table() -> None:
    assert {room for _, room, _ in modules()} == ROOMS.keys() | BASE


def test_every_module_imports_alone_and_only_some_load_lightning_or_plotting() -> None:
    """Each as if nothing of the package had been imported before it, so that no circle hides."""
    names = [m[:2] for m in modules() if m[1] not in ("energydiff", "__main__")]
    code = ALONE.format(modules=names, heavy=HEAVY, path=[str(PACKAGE)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_everything_imports_together() -> None:
    """lightning, torchvision and torch-fidelity, after the package and in one process."""
    code = "import energydiff, lightning, torchvision.transforms, torchmetrics, torch_fidelity"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
