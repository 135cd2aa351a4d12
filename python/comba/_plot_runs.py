"""Pictures of training runs: loss, learning rate, gradient norm and throughput, for one run or several beside each other."""

import json
import math
import pathlib

from comba import _plot_style as style

NAN = math.nan
AXES = {"step": "step", "tokens": "tokens", "time": "{unit} of training steps"}
UNITS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}


def number(value) -> float:
    """What a record says; NaN where it says nothing, or null, as the program writes what is not finite."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else NAN


def records(file: pathlib.Path) -> list[dict]:
    """The lines of a metrics.jsonl. The last one may still be being written, or was cut short by a crash."""
    found = []
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            if number == len(lines):
                continue
            raise ValueError(f"{file}: line {number} is no JSON") from None
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            raise ValueError(f"{file}: line {number} has no step")
        found.append(record)
    return found


def file_of(run: pathlib.Path) -> pathlib.Path:
    file = run / "metrics.jsonl"
    if file.is_file():
        return file
    if (run.parent / "metrics.jsonl").is_file():
        raise ValueError(f"{run} is a part of a run; the run is {run.parent}")
    raise ValueError(f"{run} is no run: there is no {file.name} in it, which comba train writes" if run.is_dir() else f"{run} is no directory")


class Metrics:
    """The numbers of one run, in the order of its steps. Raises ValueError when there are none."""

    def __init__(self, run: pathlib.Path):
        self.name = run.resolve().name
        file = file_of(run)
        found = records(file)
        steps = [record for record in found if "loss" in record]
        if not steps:
            raise ValueError(f"{file} has no training step yet")
        self.steps: list[int] = [record["step"] for record in steps]
        self.bits = [number(record["loss"]) / math.log(2) for record in steps]  # training loss, bits per token
        self.learning_rate = [number(record.get("learning_rate")) for record in steps]
        self.gradient_norm = [number(record.get("gradient_norm")) for record in steps]
        self.tokens = [number(record.get("tokens")) for record in steps]  # since the run began
        self.seconds = [number(record.get("seconds")) for record in steps]  # of one step
        heldout = [record for record in found if math.isfinite(number(record.get("heldout_bits_per_byte")))]
        self.heldout_steps: list[int] = [record["step"] for record in heldout]
        self.heldout_bits = [float(record["heldout_bits_per_byte"]) for record in heldout]  # bits per byte

    def new_tokens(self) -> list[float]:
        """Tokens of each step. Those of the first one are known when it is step 1."""
        before = [0.0 if self.steps[0] == 1 else NAN, *self.tokens[:-1]]
        steps_before = [self.steps[0] - 1, *self.steps[:-1]]
        return [(now - then) / max(1, s - t) for now, then, s, t in zip(self.tokens, before, self.steps, steps_before)]

    def throughput(self, window: int) -> list[float]:
        """Tokens per second over the last `window` steps."""
        pairs = [(n, s) if math.isfinite(n) and s > 0 else (NAN, NAN) for n, s in zip(self.new_tokens(), self.seconds)]
        tokens, seconds = running_mean([n for n, _ in pairs], window), running_mean([s for _, s in pairs], window)
        return [n / s for n, s in zip(tokens, seconds)]

    def position(self, axis: str) -> list[float]:
        """Where each step lies on an axis, times in seconds; NaN where the run does not say."""
        if axis == "step":
            return list(map(float, self.steps))
        if axis == "tokens":
            return self.tokens
        total, times = 0.0, []
        for seconds in self.seconds:
            total += seconds if math.isfinite(seconds) else 0
            times.append(total if math.isfinite(seconds) else NAN)
        return times

    def summary(self) -> str:
        """One line of what the picture shows."""
        window = smoothing(self.steps)
        words = [f"{self.steps[-1]:,} steps", f"training {running_mean(self.bits, window)[-1]:.3f} bits per token"]
        if self.heldout_bits:
            best = min(range(len(self.heldout_bits)), key=self.heldout_bits.__getitem__)
            words.append(f"held-out {self.heldout_bits[-1]:.3f} bits per byte (best {self.heldout_bits[best]:.3f} at step {self.heldout_steps[best]:,})")
        if math.isfinite(rate := self.throughput(window)[-1]):
            words.append(f"{rate:,.0f} tokens/s")
        return f"{self.name}: {', '.join(words)}"


def smoothing(steps: list) -> int:
    """Steps that a curve averages over: a fiftieth of the run."""
    return max(1, len(steps) // 50)


def running_mean(values: list[float], window: int) -> list[float]:
    """Means of the `window` values around each, of fewer near the start and the end, without those that are NaN or
    infinite; NaN stays NaN. Near the start as many before as after, so that a steep curve is followed."""
    totals, counts = [0.0], [0]
    for value in values:
        known = math.isfinite(value)
        totals.append(totals[-1] + (value if known else 0))
        counts.append(counts[-1] + known)
    means = []
    for i, value in enumerate(values):
        before = min(i, window // 2)
        begin, end = i - before, min(len(values), i + min(before, (window - 1) // 2) + 1)
        means.append((totals[end] - totals[begin]) / (counts[end] - counts[begin]) if math.isfinite(value) else NAN)
    return means


def distinguish(runs: list[Metrics], paths: list[pathlib.Path]) -> None:
    """Gives runs whose directories have the same name longer ones."""
    for depth in range(2, 6):
        names = [run.name for run in runs]
        for run, path in zip(runs, paths):
            if names.count(run.name) > 1:
                run.name = "/".join(path.resolve().parts[-depth:])


class Across:
    """What runs are drawn over: where their steps lie, and what the axis is called."""

    def __init__(self, runs: list[Metrics], axis: str):
        self.positions = [run.position(axis) for run in runs]
        known = [x for xs in self.positions for x in xs if math.isfinite(x)]
        if not known:
            raise ValueError(f"{runs[0].name} does not say its {axis}")
        self.label = AXES[axis]
        if axis == "time":
            unit = max((name for name in UNITS if max(known) >= 2 * UNITS[name]), key=UNITS.get, default="seconds")
            self.label = self.label.format(unit=unit)
            self.positions = [[x / UNITS[unit] for x in xs] for xs in self.positions]
        self.whole_numbers = axis != "time"


def _curve(axes, x: list[float], y: list[float], index: int, window: int) -> bool:
    """The values, faint where a mean stands before them. Whether there was anything to draw."""
    if not any(math.isfinite(value) for value in y):
        return False
    look = style.style_of(index)
    if window > 1:
        axes.plot(x, y, color=look["color"], alpha=0.22, linewidth=0.7, rasterized=len(x) > 5000)
    single = {"marker": "."} if len(x) == 1 else {}
    axes.plot(x, running_mean(y, window), **look, **single)
    return True


def _draw_loss(axes, runs: list[Metrics], levels: list[tuple[str, float]], across: Across) -> None:
    for index, (run, x) in enumerate(zip(runs, across.positions)):
        _curve(axes, x, run.bits, index, smoothing(run.steps))
        place = dict(zip(run.steps, x))
        heldout = [place.get(step, NAN) for step in run.heldout_steps]
        axes.plot(heldout, run.heldout_bits, **style.marker_of(index), linestyle="none", markersize=5, markeredgecolor="white", markeredgewidth=0.6)
    axes.set_ylabel("bits per token (training),\nper byte (held-out)")
    # The first steps of a fresh model would flatten all the rest.
    shown = [bits for run in runs for bits in run.bits + run.heldout_bits if math.isfinite(bits)] + [bits for _, bits in levels]
    first = [bits for run in runs for bits in run.bits[:1] if math.isfinite(bits)]
    if shown:
        lowest = min(shown)
        axes.set_ylim(max(0.0, lowest - 0.2), min(max(first, default=math.inf), lowest + 4) + 0.2)
    _draw_levels(axes, levels)


def _draw_levels(axes, levels: list[tuple[str, float]]) -> None:
    """Lines with their names at the right of them, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    above = -math.inf
    for name, bits in sorted(levels, key=lambda level: level[1]):
        axes.axhline(bits, color="#555555", linestyle="--", linewidth=1)
        above = max((bits - low) / (high - low), above + 0.05)
        axes.annotate(f"{name}: {bits:.3f}", (1.005, above), xycoords="axes fraction", va="center", fontsize=9, color="#333333")


def _panels(runs: list[Metrics]) -> dict[str, list[tuple[list[float], int]]]:
    """What stands below the loss: title to values and smoothing of each run. Panels that no run fills are left out."""
    panels = {
        "learning rate": [(run.learning_rate, 1) for run in runs],
        "gradient norm": [(run.gradient_norm, smoothing(run.steps)) for run in runs],
        "tokens per second": [(run.throughput(max(5, smoothing(run.steps))), 1) for run in runs],
    }
    return {title: curves for title, curves in panels.items() if any(math.isfinite(y) for values, _ in curves for y in values)}


def _legend(figure, runs: list[Metrics]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **style.style_of(i), label=run.name) for i, run in enumerate(runs)]
    if any(run.heldout_bits for run in runs):
        shape = style.MARKERS[0] if len(runs) == 1 else "o"
        handles.append(Line2D([], [], color="#555555", marker=shape, linestyle="none", markersize=5, label="held-out"))
    width = max(len(run.name) for run in runs)
    figure.legend(handles=handles, loc="outside upper left", ncols=max(1, min(len(handles), 110 // (width + 8))))


def draw(runs: list[Metrics], levels: list[tuple[str, float]], axis: str, out: pathlib.Path) -> None:
    """One curve a run in each panel, and a dashed line for each named level, in bits per byte."""
    across = Across(runs, axis)
    with style.pyplot() as plt:
        panels = _panels(runs)
        figure = plt.figure(figsize=(9, 6.2 if panels else 4.4), layout="constrained")
        grid = figure.add_gridspec(2 if panels else 1, max(1, len(panels)), height_ratios=[1.7, 1] if panels else [1])
        top = figure.add_subplot(grid[0, :])
        top.set_title("loss")
        _draw_loss(top, runs, levels, across)
        for place, (title, curves) in enumerate(panels.items()):
            axes = figure.add_subplot(grid[1, place])
            axes.set_title(title)
            for index, (x, (values, window)) in enumerate(zip(across.positions, curves)):
                _curve(axes, x, values, index, window)
            if title == "gradient norm":
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_minor_formatter(plt.NullFormatter())
                axes.yaxis.set_major_formatter(style.short)
            else:
                axes.set_ylim(bottom=0)
                axes.yaxis.set_major_formatter(style.short if title == "tokens per second" else "{x:g}")
        for axes in figure.axes:
            axes.set_xlim(top.get_xlim())
            axes.xaxis.set_major_locator(plt.MaxNLocator(10 if axes is top else 4, steps=[1, 2, 2.5, 5, 10], integer=across.whole_numbers))
            axes.set_xlabel(across.label)
            axes.xaxis.set_major_formatter(style.short)
        _legend(figure, runs)
        style.save(figure, out)
