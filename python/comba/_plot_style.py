"""How pictures of comba.plot look: one style on screen and on paper, in colour and without."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

# The palette of Okabe and Ito (Color Universal Design), which people with any kind of colour vision tell apart, without
# its yellow, which is too light for lines. Whoever sees no colour at all goes by the line styles and markers.
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
LINES = ["-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 3))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
FORMATS = (".png", ".svg", ".pdf")

STYLE = {
    "figure.facecolor": "white",
    "savefig.dpi": 160,
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "svg.hashsalt": "comba",  # equal numbers make equal files
}


class NoMatplotlib(Exception):
    """The package that draws is missing."""


def style_of(index: int) -> dict:
    """Color and line of a curve: more curves than colours differ in their lines."""
    return {"color": COLORS[index % len(COLORS)], "linestyle": LINES[(index + index // len(COLORS)) % len(LINES)]}


def marker_of(index: int) -> dict:
    return {"color": COLORS[index % len(COLORS)], "marker": MARKERS[(index + index // len(COLORS)) % len(MARKERS)]}


def short(number: float, _=None) -> str:
    """1500 as 1.5k, 3e9 as 3B: for axes."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


@contextlib.contextmanager
def pyplot() -> Iterator:
    """matplotlib.pyplot in our style, without a window. Raises NoMatplotlib."""
    try:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot as plt
    except ModuleNotFoundError as error:
        raise NoMatplotlib(f"needs the package matplotlib (pip install matplotlib): {error}") from None
    with matplotlib.rc_context(STYLE):
        yield plt
        plt.close("all")


def save(figure, out: pathlib.Path) -> None:
    """Writes the picture whole or not at all; its suffix, one of FORMATS, is its format."""
    written = out.with_name(f".{out.name}.{os.getpid()}{out.suffix}")
    metadata = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    try:
        figure.savefig(written, metadata=metadata[out.suffix])
        written.replace(out)
    finally:
        written.unlink(missing_ok=True)
