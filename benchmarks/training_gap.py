#!/usr/bin/env python3
"""How far runs of one seed each, made in another way, are from a baseline: their loss over the last steps, beside what
another seed changes.

RUNS is a folder of directories that comba train wrote: BASELINE-N and OTHER-N for each seed N, of which this reads
metrics.jsonl. The gap of a seed is the mean difference of the two losses over the last steps, in nats a token; the
spread is that of the baseline's mean losses, largest less smallest. Prints a table in Markdown, and fails where the mean
gap is not within the spread.

Example: benchmarks/training_gap.py docs/gpu-training --baseline cpu-seed --other gpu-seed
"""

import argparse
import json
import pathlib
import statistics
import sys


def losses(run: pathlib.Path) -> list[float]:
    """Of each step, in order."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def pairs(folder: pathlib.Path, baseline: str, other: str) -> list[tuple[str, pathlib.Path, pathlib.Path]]:
    """Seed and both runs of it."""
    found = []
    for run in sorted(folder.glob(f"{baseline}*")):
        seed = run.name.removeprefix(baseline)
        partner = folder / f"{other}{seed}"
        if not (partner / "metrics.jsonl").is_file():
            sys.exit(f"training_gap: every baseline needs its other run; got {run.name} without {partner.name} ({folder})")
        found.append((seed, run, partner))
    if len(found) < 2:
        sys.exit(f"training_gap: a spread needs two seeds; got {len(found)} of {baseline}N ({folder})")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=pathlib.Path, metavar="RUNS")
    parser.add_argument("--baseline", default="cpu-seed", metavar="PREFIX")
    parser.add_argument("--other", default="gpu-seed", metavar="PREFIX")
    parser.add_argument("--last", type=int, default=50, metavar="STEPS")
    options = parser.parse_args(arguments)

    means, gaps = [], []
    print(f"| seed | {options.baseline.removesuffix('-seed')} | {options.other.removesuffix('-seed')} | gap |\n|---|---:|---:|---:|")
    for seed, baseline, other in pairs(options.runs, options.baseline, options.other):
        a, b = losses(baseline), losses(other)
        if len(a) != len(b) or len(a) < options.last:
            sys.exit(f"training_gap: both runs need the same {options.last} steps or more; got {len(a)} and {len(b)} of seed {seed}")
        means.append(statistics.fmean(a[-options.last :]))
        gaps.append(statistics.fmean(y - x for x, y in zip(a[-options.last :], b[-options.last :])))
        print(f"| {seed} | {means[-1]:.4f} | {means[-1] + gaps[-1]:.4f} | {gaps[-1]:+.4f} |")
    spread, gap = max(means) - min(means), statistics.fmean(gaps)
    print(f"\nMean gap {gap:+.4f} nats a token over the last {options.last} steps; spread of the seeds {spread:.4f}.")
    return 0 if abs(gap) <= spread else 1


if __name__ == "__main__":
    sys.exit(main())
