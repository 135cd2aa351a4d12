"""Pictures of benchmarks: the time of each call as a point with the range of its repetitions, for all who make it."""

import dataclasses
import json
import pathlib
import statistics

from comba import _plot_style as style


@dataclasses.dataclass
class Time:
    """Seconds of one call: the median of its repetitions and what most of them lie between."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Time":
        ordered = sorted(seconds)
        tenth = len(ordered) // 10
        return cls(statistics.median(ordered), ordered[tenth], ordered[-1 - tenth])


@dataclasses.dataclass
class Benchmark:
    """Times of calls, by their name and by who made them, and what a call reached beside that."""

    title: str
    times: dict[str, dict[str, Time]]
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    notes_head: str = "rate"


def _rates(rows: list[dict]) -> dict[str, str]:
    notes = {}
    for row in rows:
        unit = "GFLOP/s" if row["unit"] == "FLOP" else "GB/s"
        share = f" ({row['of_ceiling']:.0%})" if "of_ceiling" in row else ""
        notes[row["name"]] = f"{row['rate'] / 1e9:,.0f} {unit}{share}"
    return notes


def _operator(results: dict) -> Benchmark:
    """What comba bench operator --json writes."""
    context = results["context"]
    title = f"{context['processor']}, {context['threads']} threads, {context['implementation']}"
    return Benchmark(title, {row["name"]: {"comba": Time.of(row["seconds"])} for row in results["rows"]}, _rates(results["rows"]), "rate (of its ceiling)")


def _beside_transformers(results: dict) -> Benchmark:
    """docs/benchmarks/operator-cpu.json."""
    benchmark = _operator(results["comba"])
    for row in results["transformers"]["rows"]:
        benchmark.times[row["name"]]["transformers"] = Time.of(row["seconds"])
    return benchmark


def _training(results: dict) -> Benchmark:
    """docs/benchmarks/training-cpu.json: rounds of steps."""
    rounds = results["pytorch"]
    ours = Time.of([seconds for steps in results["comba"] for seconds in steps])
    theirs = Time.of([seconds for each in rounds for seconds in each["seconds"]])
    name = f"training step of {results['config']}"
    note = f"{rounds[0]['tokens'] / ours.median:,.0f} tokens/s"
    title = f"CPU, {rounds[0]['threads']} threads, {rounds[0]['program']}"
    return Benchmark(title, {name: {"comba": ours, "plain PyTorch": theirs}}, {name: note})


def _layers(results: dict) -> Benchmark:
    """docs/benchmarks/transformers-cpu.json."""
    times = {}
    for row in sorted(results["rows"], key=lambda row: row["whole"]):
        name = f"{row['model']}, {row['kind']}{', with projections' if row['whole'] else ''}"
        times[name] = {"patched": Time.of(row["comba"]), "transformers": Time.of(row["transformers"])}
    return Benchmark(f"CPU, {results['context']['threads']} threads, {results['context']['program']}", times)


def _gpu(results: dict) -> Benchmark:
    """What benchmarks/peers.py writes. Rows that were not right have no time."""
    times, notes = {}, {}
    for row in results["rows"]:
        if "us" not in row:
            continue
        times[row["name"]] = {"comba": Time(row["us"] * 1e-6, row["p10_us"] * 1e-6, row["p90_us"] * 1e-6)}
        for name, peer in row.get("peers", {}).items():
            if "us" in peer:
                times[row["name"]][name] = Time(*[peer["us"] * 1e-6] * 3)
        rate = f"{row['flop_per_second'] / 1e12:.0f} TFLOP/s" if "flop_per_second" in row else f"{row['bytes_per_second'] / 1e9:,.0f} GB/s"
        notes[row["name"]] = f"{rate} ({row['of_copy']:.0%} of copy)"
    return Benchmark(f"{results['context']['device']}, {results['context']['program']}", times, notes)


def _read(file: pathlib.Path) -> Benchmark:
    results = json.loads(file.read_text(encoding="utf-8"))
    kinds = {_gpu: {"ceilings", "rows"}, _training: {"config", "pytorch"}, _beside_transformers: {"comba", "transformers"}}
    for make, keys in kinds.items():
        if keys <= set(results):
            return make(results)
    return _layers(results) if "model" in results["rows"][0] else _operator(results)


def read(files: list[pathlib.Path]) -> Benchmark:
    """The results in one file, or in several beside each other. Raises ValueError naming the file that has none."""
    found: list[Benchmark] = []
    for file in files:
        try:
            found.append(_read(file))
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            raise ValueError(f"{file} holds no results of a benchmark: {type(error).__name__}: {error}") from None
        if not found[-1].times:
            raise ValueError(f"{file} holds no times")
    if len(files) == 1:
        return found[0]
    names = [str(file) if [other.stem for other in files].count(file.stem) > 1 else file.stem for file in files]
    times: dict[str, dict[str, Time]] = {}
    for name, benchmark in zip(names, found):
        for row, by in benchmark.times.items():
            times.setdefault(row, {}).update({f"{who}, {name}": time for who, time in by.items()})
    return Benchmark(", ".join(dict.fromkeys(benchmark.title for benchmark in found)), times)


def seconds_of(value: float, _=None) -> str:
    """0.0015 as 1.5 ms."""
    for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "\u00b5s")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def _notes(benchmark: Benchmark, names: list[str]) -> list[tuple[str, dict[str, str]]]:
    """Columns beside the rows, each with its head: what the first one reached, and how many times as long others take."""
    columns = [(benchmark.notes_head, benchmark.notes)] if benchmark.notes else []
    ratios = {}
    for row, by in benchmark.times.items():
        others = [time.median for who, time in by.items() if who != names[0]]
        if others and names[0] in by:
            ratio = min(others) / by[names[0]].median
            ratios[row] = f"{ratio:.2f}" if ratio < 2 else f"{ratio:.1f}"
    if ratios:
        columns.append((f"{names[1] if len(names) == 2 else 'fastest other'} / {names[0]}", ratios))
    return columns


def _write_notes(axes, columns: list[tuple[str, dict[str, str]]], rows: list[str]) -> None:
    left = 8.0  # points from the axes
    for head, notes in columns:
        texts = [head, *(notes.get(row, "") for row in rows)]
        for y, text in enumerate(texts, -1):
            axes.annotate(text, (1, y), xytext=(left, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center", fontsize=9,
                          fontweight="bold" if y < 0 else "normal", annotation_clip=False)
        left += 5.2 * max(map(len, texts)) + 12


def _marker(index: int, size: float) -> dict:
    """The first one is filled and the others are hollow, so that both are seen where they meet."""
    look = style.marker_of(index)
    return {**look, "linestyle": "none", "markersize": size, "markerfacecolor": look["color"] if index == 0 else "white", "markeredgewidth": 1.6}


def _draw_rows(axes, benchmark: Benchmark, names: list[str]) -> None:
    for y, by in enumerate(benchmark.times.values()):
        medians = [time.median for time in by.values()]
        axes.plot([min(medians), max(medians)], [y, y], color="#999999", linewidth=1.2, zorder=1)
        for who, time in by.items():
            index = names.index(who)
            color = style.marker_of(index)["color"]
            axes.plot([time.low, time.high], [y, y], color=color, linewidth=2.6, alpha=0.45, solid_capstyle="round", zorder=2)
            axes.plot([time.median], [y], **_marker(index, 5 if index == 0 else 8), zorder=4 if index == 0 else 3)


def draw(benchmark: Benchmark, out: pathlib.Path) -> None:
    """A row for each call, times on a logarithmic axis, notes at the right."""
    names = list(dict.fromkeys(who for by in benchmark.times.values() for who in by))
    rows = list(benchmark.times)
    with style.pyplot() as plt:
        from matplotlib.lines import Line2D

        figure, axes = plt.subplots(figsize=(12, 1.8 + 0.3 * len(rows)), layout="constrained")
        _draw_rows(axes, benchmark, names)
        axes.set_yticks(range(len(rows)), rows, fontsize=9)
        axes.set_ylim(len(rows) - 0.5, -0.7)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", linestyle=":")
        axes.spines["left"].set_visible(False)
        axes.set_xscale("log")
        every = [t for by in benchmark.times.values() for time in by.values() for t in (time.low, time.high)]
        axes.set_xlim(min(every) / 1.5, max(every) * 1.5)
        if max(every) < 300 * min(every):
            axes.xaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5) if max(every) < 30 * min(every) else (1, 3)))
        axes.xaxis.set_major_formatter(seconds_of)
        axes.xaxis.set_minor_formatter(plt.NullFormatter())
        axes.set_xlabel("time of a call (bars: most repetitions)")
        _write_notes(axes, _notes(benchmark, names), rows)
        handles = [Line2D([], [], **_marker(i, 7), label=name) for i, name in enumerate(names)]
        figure.legend(handles=handles, loc="outside upper left", ncols=min(len(names), 5), title=benchmark.title, alignment="left",
                      title_fontproperties={"weight": "bold"})
        style.save(figure, out)
