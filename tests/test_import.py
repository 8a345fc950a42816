"""Everything imports together, whatever build of torchvision lies beside torch."""

import subprocess
import sys


def test_everything_imports_together() -> None:
    """lightning, torchvision and torch-fidelity, after the package and in one process."""
    code = "import energydiff, lightning, torchvision.transforms, torchmetrics, torch_fidelity"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_core_does_not_import_lightning_or_plotting() -> None:
    """Energies, potentials, denoisers, diffusion and sampling are usable on a bare tensor."""
    rooms = ", ".join(
        f"energydiff.{room}"
        for room in ("energies", "potentials", "denoisers", "diffusion", "sampling", "evaluation")
    )
    code = (
        f"import sys, energydiff, {rooms};"
        "sys.exit(sorted({'lightning', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
