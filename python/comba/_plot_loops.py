"""Pictures of control loops: what comba train --diagnostics has found in the layers of a run, or of several beside each other."""

import math
import pathlib
import re
from dataclasses import dataclass

from comba import _plot_runs
from comba import _plot_style as style

LOW, MIDDLE, HIGH = 1, 3, 5  # of the seven quantiles: 5%, 50%, 95%


@dataclass(frozen=True)
class Panel:
    """One quantity of a loop over the steps: a number, or quantiles, whose 5% and 95% are a band around the median."""

    key: str
    title: str
    is_log: bool = False  # where values are far apart
    level: float | None = None  # where a line across says that something changes


PANELS = [
    Panel("decay", "decay α"),
    Panel("key_eigenvalue", "eigenvalue along the key", level=0),
    Panel("negative_share", "negative eigenvalues, share"),
    Panel("memory", "memory, tokens", is_log=True),
    Panel("decay_memory", "memory by decay alone, tokens", is_log=True),
    Panel("state_norm", "norm of the state"),
    Panel("key_coherence", "coherence of near keys"),
    Panel("query_ratio", "|q − d k| / |q|", is_log=True, level=1),
    Panel("query_cosine", "cosine of q − d k and q", level=0),
    Panel("correction", "correction d"),
    Panel("feedback", "feedback b"),
]


class Loops:
    """The diagnoses of one run, from the lines of its metrics. Raises ValueError when there are none."""

    def __init__(self, name: str, records: list[dict]):
        self.name = name
        found = [record for record in records if record.get("control_loops")]
        if not found:
            raise ValueError(f"{name} has no diagnoses: comba train --diagnostics N makes them")
        self.steps: list[int] = [record["step"] for record in found]
        self.loops: list[list[dict]] = [record["control_loops"] for record in found]  # by step, then by layer
        self.modules: list[str] = [loop["module"] for loop in self.loops[0]]
        losses = [(record["step"], float(record["loss"]) / math.log(2)) for record in records if isinstance(record.get("loss"), (int, float))]
        self.loss_steps = [step for step, _ in losses]
        self.bits = [bits for _, bits in losses]  # training loss, bits per token
        heldout = [record for record in records if isinstance(record.get("heldout_bits_per_byte"), (int, float))]
        self.heldout_steps = [record["step"] for record in heldout]
        self.heldout_bits = [record["heldout_bits_per_byte"] for record in heldout]

    @classmethod
    def of_run(cls, run: pathlib.Path) -> "Loops":
        return cls(run.resolve().name, _plot_runs.records(_plot_runs.file_of(run)))

    def values(self, key: str, layers: list[int]) -> list[tuple[float, float, float]] | None:
        """Low, middle and high at each step, means over these layers; None where no layer has the quantity."""
        curve = []
        for loops in self.loops:
            found = [loops[layer][key] for layer in layers if key in loops[layer]]
            if not found:
                return None
            triples = [(value[LOW], value[MIDDLE], value[HIGH]) if isinstance(value, list) else (value,) * 3 for value in found]
            curve.append(tuple(sum(map(_plot_runs.number, column)) / len(column) for column in zip(*triples)))
        return curve


def short_module(module: str) -> str:
    """model.layers.3.attn as layer 3."""
    number = re.search(r"layers\.(\d+)", module)
    return f"layer {number[1]}" if number else module


def _curves(runs: list[Loops]) -> list[tuple[str, Loops, list[int]]]:
    """Label, run and layers of each curve: the layers of one run, or each run as the mean of its layers."""
    if len(runs) == 1:
        return [(short_module(module), runs[0], [layer]) for layer, module in enumerate(runs[0].modules)]
    return [(run.name, run, list(range(len(run.modules)))) for run in runs]


def _draw_panel(axes, panel: Panel, curves) -> bool:
    """Whether any curve has the quantity."""
    drawn = False
    for index, (_, run, layers) in enumerate(curves):
        if (values := run.values(panel.key, layers)) is None:
            continue
        low, middle, high = zip(*values)
        axes.plot(run.steps, middle, **style.style_of(index))
        if low != high:
            axes.fill_between(run.steps, low, high, color=style.style_of(index)["color"], alpha=0.12, linewidth=0)
        drawn = True
    axes.set_title(panel.title)
    shown = [value for line in axes.lines for value in line.get_ydata()]
    if panel.is_log and shown and min(shown) > 0 and max(shown) > 5 * min(shown):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(style.short)
        axes.yaxis.set_minor_formatter("")
    if panel.level is not None:
        axes.axhline(panel.level, color="#555555", linestyle="--", linewidth=0.9)
    return drawn


def _draw_loss(axes, runs: list[Loops]) -> None:
    for index, run in enumerate(runs):
        window = _plot_runs.smoothing(run.loss_steps)
        axes.plot(run.loss_steps, _plot_runs.running_mean(run.bits, window), **style.style_of(index))
        axes.plot(run.heldout_steps, run.heldout_bits, **style.marker_of(index), linestyle="none", markersize=5, markeredgecolor="white")
    axes.set_title("loss, bits" + (" (points: held out)" if any(run.heldout_bits for run in runs) else ""))
    lowest = min((bits for run in runs for bits in run.bits + run.heldout_bits), default=0)
    axes.set_ylim(max(0, lowest - 0.2), min(lowest + 4, max((bits for run in runs for bits in run.bits), default=4)))


def _legend(figure, curves) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **style.style_of(index), label=label) for index, (label, _, _) in enumerate(curves)]
    width = max(len(label) for label, _, _ in curves)
    figure.legend(handles=handles, loc="outside upper left", ncols=max(1, min(len(handles), 120 // (width + 8))))


def draw(runs: list[Loops], out: pathlib.Path, keys: list[str] | None = None, columns: int = 4) -> None:
    """The loss and the quantities of `keys`, or all that the runs have: for one run a curve a layer, for several a curve
    a run. Bands are from the 5% to the 95% quantile of tokens and heads, lines are medians."""
    curves = _curves(runs)
    panels = [panel for panel in PANELS if (keys is None or panel.key in keys) and any(run.values(panel.key, layers) for _, run, layers in curves)]
    rows = math.ceil((1 + len(panels)) / columns)
    with style.pyplot() as plt:
        figure = plt.figure(figsize=(3.4 * columns, 2.7 * rows + 0.5), layout="constrained")
        grid = figure.add_gridspec(rows, columns)
        for place in range(1 + len(panels)):
            axes = figure.add_subplot(grid[place // columns, place % columns])
            if place == 0:
                _draw_loss(axes, runs)
            else:
                _draw_panel(axes, panels[place - 1], curves)
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(plt.MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=True))
            axes.xaxis.set_major_formatter(style.short)
        _legend(figure, curves)
        style.save(figure, out)
