"""Draws the loss of training runs as an SVG file: python -m comba.plot RUN... --out loss.svg

Reads RUN/metrics.jsonl. The training loss is shown in bits per token, averaged over about a fiftieth of the run, with
the single steps behind it; held-out results are shown in bits per byte. For a byte-level model the two units are one.
"""

import argparse
import json
import math
import pathlib
import sys


class Metrics:
    """The numbers of one run, in the order of its steps."""

    def __init__(self, run: pathlib.Path):
        self.name = run.resolve().name
        self.steps: list[int] = []
        self.bits: list[float] = []  # training loss, bits per token
        self.heldout_steps: list[int] = []
        self.heldout_bits: list[float] = []  # bits per byte
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if "loss" in record:
                self.steps.append(record["step"])
                self.bits.append(record["loss"] / math.log(2))
            if "heldout_bits_per_byte" in record:
                self.heldout_steps.append(record["step"])
                self.heldout_bits.append(record["heldout_bits_per_byte"])
        if not self.steps:
            raise ValueError(f"{run / 'metrics.jsonl'} has no training step")


def running_mean(values: list[float], window: int) -> list[float]:
    """Means of the last `window` values; of fewer at the start."""
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value
        if i >= window:
            total -= values[i - window]
        means.append(total / min(i + 1, window))
    return means


def draw(runs: list[Metrics], levels: list[tuple[str, float]], out: pathlib.Path) -> None:
    """One curve a run, and a dashed line for each named level, in bits per byte."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "comba"  # equal numbers make equal files
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for index, run in enumerate(runs):
        color = f"C{index}"
        axes.plot(run.steps, run.bits, color=color, alpha=0.25, linewidth=0.8)
        axes.plot(run.steps, running_mean(run.bits, max(1, len(run.bits) // 50)), color=color, label=f"{run.name}: training")
        if run.heldout_steps:
            axes.plot(run.heldout_steps, run.heldout_bits, "o-", color=color, markersize=4, label=f"{run.name}: held-out")
    for index, (name, bits) in enumerate(levels):
        axes.axhline(bits, color=f"C{len(runs) + index}", linestyle="--", linewidth=1, label=f"{name}: {bits:.3f}")
    axes.set_xlabel("step")
    axes.set_ylabel("bits per token (training), per byte (held-out)")
    # The first steps of a fresh model would flatten all the rest.
    lowest = min(min(run.bits + run.heldout_bits) for run in runs)
    lowest = min([lowest] + [bits for _, bits in levels])
    axes.set_ylim(max(0.0, lowest - 0.2), min(max(run.bits[0] for run in runs), lowest + 4) + 0.2)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out, metadata={"Date": None})


def parse_level(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"must be NAME=BITS; got '{text}'")
    return name, float(value)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m comba.plot", description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN", help="directory that comba train wrote")
    parser.add_argument("--out", type=pathlib.Path, help="SVG file to write (default: loss.svg in the first RUN)")
    parser.add_argument("--level", type=parse_level, action="append", default=[], metavar="NAME=BITS",
                        help="also draw a line at so many bits per byte")
    options = parser.parse_args(arguments)
    out = options.out or options.runs[0] / "loss.svg"
    try:
        draw([Metrics(run) for run in options.runs], options.level, out)
    except (OSError, ValueError) as error:
        print(f"python -m comba.plot: {error}", file=sys.stderr)
        return 1
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
