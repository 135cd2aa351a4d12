"""A table and a picture of what comba ablate found: python -m comba.plot_ablation RESULTS.json [--out picture.png]

The table (--table FILE, else to standard output) has a line for each variant: the mean of its seeds and their standard
deviation, then the differences from the first variant, taken seed by seed, with a 95 % interval by Student's t (worse
or better where that leaves out 0), and what the paper reports. The picture draws the same differences. A sweep may be
in progress. Pictures need the package matplotlib; --table alone does not.
"""

import dataclasses
import json
import math
import pathlib
import statistics
import sys

from comba import _plot_program, _plot_style

# 97.5 % quantiles of Student's t by degrees of freedom; beyond, that of the normal distribution is near enough.
T_QUANTILES = (math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
METRICS = {"loss": "all tokens", "recalled_loss": "recalled tokens"}
PAPER = {"wiki_ppl": "Wiki ppl", "lambada_ppl": "LAMBADA ppl", "zero_shot": "zero-shot", "recall": "recall"}


@dataclasses.dataclass
class Estimate:
    """The mean of some numbers, how they spread, and how far from it the truth may be."""

    mean: float
    deviation: float  # of a sample
    margin: float  # half of the 95 % interval of the mean; infinite for one number
    count: int

    @classmethod
    def of(cls, values: list[float]) -> "Estimate":
        count = len(values)
        deviation = statistics.stdev(values) if count > 1 else math.nan
        quantile = T_QUANTILES[count - 1] if count <= len(T_QUANTILES) else 1.96
        margin = quantile * deviation / math.sqrt(count) if count > 1 else math.inf
        return cls(statistics.fmean(values), deviation, margin, count)

    def verdict(self) -> str:
        """Of a difference in loss."""
        if self.margin >= abs(self.mean):
            return "no difference seen"
        return "worse" if self.mean > 0 else "better"


@dataclasses.dataclass
class Line:
    """A variant with its seeds."""

    name: str
    cells: list[dict]

    def losses(self, metric: str) -> dict[int, float]:
        """By seed, of the cells that have one: those that diverged have none."""
        found = {cell["seed"]: cell.get("heldout", {}).get(metric) for cell in self.cells}
        return {seed: loss for seed, loss in found.items() if loss is not None}

    def difference(self, base: "Line", metric: str) -> Estimate | None:
        """From the base, of the seeds that both have."""
        ours, theirs = self.losses(metric), base.losses(metric)
        seeds = [seed for seed in ours if seed in theirs]
        return Estimate.of([ours[seed] - theirs[seed] for seed in seeds]) if seeds else None

    @property
    def paper(self) -> dict:
        return self.cells[0].get("paper", {})


def lines_of(results: dict) -> list[Line]:
    """Of each variant, in the order of the first seed's cells; the base has no changes."""
    by_name: dict[str, list[dict]] = {}
    for cell in sorted(results["cells"], key=lambda cell: bool(cell["changes"])):
        by_name.setdefault(cell["variant"], []).append(cell)
    if not by_name:
        raise ValueError("no cell is finished")
    return [Line(name, sorted(cells, key=lambda cell: cell["seed"])) for name, cells in by_name.items()]


def changes_of(line: Line) -> str:
    changes = line.cells[0]["changes"]
    if "model_type" in changes:
        return changes["model_type"]
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in changes.items()) or "the base"


def mean_and_deviation(values: list[float]) -> str:
    if not values:
        return "diverged"
    found = Estimate.of(values)
    return f"{found.mean:.4f}" + (f" ± {found.deviation:.4f}" if found.count > 1 else "")


def interval(found: Estimate | None) -> str:
    if found is None:
        return ""
    if found.count == 1:
        return f"{found.mean:+.4f}"
    text = f"{found.mean:+.4f} ± {found.margin:.4f}"
    return text if found.verdict() == "no difference seen" else f"{text}, **{found.verdict()}**"


def row_of(line: Line, base: Line) -> list[str]:
    bits = [cell["heldout"]["bits_per_byte"] for cell in line.cells if "heldout" in cell]
    differences = [None if line is base else line.difference(base, metric) for metric in METRICS]
    paper = [str(line.paper[key]) if key in line.paper else "" for key in PAPER]
    return [
        f"`{line.name}`", changes_of(line), f"{line.cells[0]['parameters'] / 1e6:.2f}", str(len(bits)),
        mean_and_deviation(list(line.losses("loss").values())), f"{statistics.fmean(bits):.4f}" if bits else "",
        interval(differences[0]), mean_and_deviation(list(line.losses("recalled_loss").values())), interval(differences[1]), *paper,
    ]


def origin_of(results: dict) -> str:
    """What was computed where, in a sentence or two."""
    cells, train, data = results["cells"], results["train"], results["data"]
    every = lambda key: ", ".join(dict.fromkeys(str(cell[key]) for cell in cells))
    tokens = train["steps"] * train["batch_size"] * train["context_length"]
    heldout = next((cell["heldout"] for cell in cells if "heldout" in cell), {"tokens": 0, "recalled_tokens": 0})
    return (
        f"{tokens / 1e6:.2f} M tokens a model ({train['steps']:,} steps of {train['batch_size']} x {train['context_length']}, "
        f"peak learning rate {train['learning_rate']:g}, {train['dtype']}) of {data['train']['bytes'] / 1e6:.1f} MB of text "
        f"({data['tokenizer']}; md5 {data['md5']}); held out: {heldout['tokens']:,} tokens, of which "
        f"{heldout['recalled_tokens']:,} could be recalled. Device: {every('device')}; {every('program')}, commit "
        f"{', '.join(dict.fromkeys(cell['commit'][:10] for cell in cells))}; {sum(cell['seconds'] for cell in cells) / 60:.0f} minutes of training in all."
    )


def table(results: dict) -> str:
    """Markdown."""
    lines = lines_of(results)
    head = ["variant", "changes", "M parameters", "seeds", "held-out loss (nats/token)", "bits/byte", "difference",
            "loss of recalled tokens", "difference", *(f"paper: {name}" for name in PAPER.values())]
    rows = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    rows += [row_of(line, lines[0]) for line in lines]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{text}\n\n{origin_of(results)}\n"


def draw_metric(axes, lines: list[Line], metric: str) -> None:
    base, others = lines[0], lines[1:]
    axes.axvline(0, color="#555555", linewidth=1)
    for y, line in enumerate(others):
        found = line.difference(base, metric)
        if found is None:
            axes.annotate("diverged", (0, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
            continue
        style = _plot_style.marker_of(0 if found.verdict() == "no difference seen" else 1 if found.mean > 0 else 2)
        if found.count > 1:
            axes.plot([found.mean - found.margin, found.mean + found.margin], [y, y], color=style["color"], alpha=0.5, linewidth=2.4)
        singles = [loss - base.losses(metric)[seed] for seed, loss in line.losses(metric).items() if seed in base.losses(metric)]
        axes.plot(singles, [y] * len(singles), linestyle="none", marker="|", color=style["color"], markersize=9)
        axes.plot([found.mean], [y], linestyle="none", **style)
    axes.set_yticks(range(len(others)), [line.name for line in others])
    axes.set_ylim(len(others) - 0.5, -0.5)
    axes.set_xlabel(f"loss beyond that of {base.name} (nats/token)")
    axes.set_title(METRICS[metric])


def draw(results: dict, out: pathlib.Path) -> None:
    lines = lines_of(results)
    metrics = [metric for metric in METRICS if lines[0].losses(metric)]
    if len(lines) < 2 or not metrics:
        raise ValueError("there is nothing to compare yet")
    with _plot_style.pyplot() as plt:
        size = (4.8 * len(metrics) + 1.5, 1.2 + 0.36 * len(lines))
        figure, panels = plt.subplots(1, len(metrics), figsize=size, layout="constrained", squeeze=False, sharey=True)
        for axes, metric in zip(panels[0], metrics):
            draw_metric(axes, lines, metric)
        _plot_style.save(figure, out)


def main(arguments: list[str] | None = None) -> int:
    parser = _plot_program.parser_of("comba.plot_ablation", __doc__)
    parser.add_argument("results", type=pathlib.Path, metavar="RESULTS.json", help="file that comba ablate wrote")
    _plot_program.add_picture_flag(parser, "ablation.png beside the results")
    _plot_program.add_table_flag(parser)
    options = parser.parse_args(arguments)

    def work() -> None:
        results = _plot_program.read(options.results)
        _plot_program.show(options, table(results), lambda out: draw(results, out), options.results.parent / "ablation.png")

    return _plot_program.run(parser.prog, work, f"{options.results} must be results of comba ablate")


if __name__ == "__main__":
    sys.exit(main())
