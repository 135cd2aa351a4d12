"""Draws training runs, or results of benchmarks: python -m comba.plot RUN... [--out picture.png]

RUN is a directory that comba train writes: its metrics.jsonl becomes a picture of loss, learning rate, gradient norm and
throughput, with all runs in the same panels. Curves are means over a fiftieth of the run, before the single steps. The
training loss is in bits per token, held-out results are in bits per byte; for a byte-level model the two are one. A run
may be in progress. --loops draws what comba train --diagnostics has found in the control loops instead: a curve for each
layer of a run, or for each of several runs. RESULTS.json in place of RUN is what comba bench operator --json or make
bench writes: it becomes a picture of times; several files are compared row by row. Pictures need the package matplotlib.
"""

import argparse
import math
import pathlib
import sys

from comba import _plot_benchmarks, _plot_loops, _plot_program, _plot_runs


def parse_level(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        bits = float(value)
    except ValueError:
        bits = math.nan
    if not name or not math.isfinite(bits):
        raise argparse.ArgumentTypeError(f"must be NAME=BITS; got '{text}'")
    return name, bits


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = _plot_program.parser_of("comba.plot", __doc__)
    parser.add_argument("paths", nargs="+", type=pathlib.Path, metavar="RUN|RESULTS.json", help="what to draw: runs, or results of benchmarks")
    _plot_program.add_picture_flag(parser, "training.png in the first RUN; RESULTS.png beside the first RESULTS.json")
    parser.add_argument("--loops", action="store_true", help="draw the control loops of runs (default picture: control-loops.png)")
    parser.add_argument("--over", choices=list(_plot_runs.AXES), help="what runs are drawn over (default: step)")
    parser.add_argument("--level", type=parse_level, action="append", default=[], metavar="NAME=BITS", help="also draw a line at so many bits per byte")
    options = parser.parse_args(arguments)
    options.results = all(path.suffix == ".json" for path in options.paths)
    if not options.results and any(path.suffix == ".json" for path in options.paths):
        parser.error("draw either runs or results of benchmarks; got both")
    if options.results and (options.level or options.over or options.loops):
        parser.error("--level, --over and --loops are for runs; got results of benchmarks")
    if options.loops and (options.level or options.over):
        parser.error("--level and --over are for losses; got --loops too")
    return options


def draw(options: argparse.Namespace) -> pathlib.Path:
    """Draws what is asked for and returns the picture's path."""
    first = options.paths[0]
    if options.results:
        out = options.out or first.with_suffix(".png")
        _plot_benchmarks.draw(_plot_benchmarks.read(options.paths), out)
        return out
    if options.loops:
        out = options.out or first / "control-loops.png"
        loops = [_plot_loops.Loops.of_run(run) for run in options.paths]
        _plot_runs.distinguish(loops, options.paths)
        _plot_loops.draw(loops, out)
        return out
    runs = [_plot_runs.Metrics(run) for run in options.paths]
    _plot_runs.distinguish(runs, options.paths)
    out = options.out or first / "training.png"
    _plot_runs.draw(runs, options.level, options.over or "step", out)
    for run in runs:
        print(run.summary())
    return out


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    return _plot_program.run("python -m comba.plot", lambda: print(draw(options)))


if __name__ == "__main__":
    sys.exit(main())
