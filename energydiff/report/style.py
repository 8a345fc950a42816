"""The look that all figures share, and the one way they are written.

Figures are built with matplotlib's object interface: no pyplot, no window, no global state left.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from energydiff.errors import UserError
from energydiff.files import whole

# Okabe & Ito 2008: told apart under every common colour blindness. Its yellow, which no thin line
# on white survives, and its black, which is no frame for a dark image, give way to a wine red.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")
INK = "#262626"
QUIET = "#8C8C8C"
LINE = "#0072B2"
ALARM = "#D7191C"

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "xtick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.hashsalt": "energydiff",
}


def look() -> AbstractContextManager[None]:
    """Within it figures have the look of all; :func:`figure` is within it already."""
    return matplotlib.rc_context(_STYLE)


@contextmanager
def figure(path: str | Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of ``width`` by ``height`` inches to draw on; written to ``path`` at the end.

    The suffix of ``path`` says what is written: png (200 dots per inch), svg, pdf. Makes the
    folder if need be; raises UserError for a suffix that cannot be written.
    """
    path = Path(path)
    with look():
        drawing = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        suffixes = drawing.canvas.get_supported_filetypes()
        if path.suffix.lstrip(".").lower() not in suffixes:
            raise UserError(
                f"{path} has no suffix of a picture: choose one of {', '.join(sorted(suffixes))}."
            )
        yield drawing
        with whole(path) as partial:
            suffix = path.suffix.lstrip(".").lower()
            drawing.savefig(partial, format=suffix, dpi=200, bbox_inches="tight", pad_inches=0.08)


def bare(axes: Axes, frame: str | None = None, width: float = 1.0) -> None:
    """Strip axes that hold a picture; ``frame`` colours a border, ``None`` leaves none."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(frame is not None)
        if frame is not None:
            spine.set(color=frame, linewidth=width)
