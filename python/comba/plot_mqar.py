"""Draws what comba mqar or comba task found: python -m comba.plot_mqar RESULTS.json [--out picture.png]

For each data set there are two panels. On the left, accuracy against the bytes of state that a mixer keeps of one
sequence, a point for each width; on the right, accuracy by the number of pairs, or by length, of each mixer's best
width. Of several learning rates the best one counts. A sweep may be in progress. Pictures need the package matplotlib.
"""

import pathlib
import sys

from comba import _plot_program, _plot_style

AXES = {"pairs": "key-value pairs", "length": "length (tokens)"}


def best_cells(cells: list[dict], data_set: str) -> dict[str, list[dict]]:
    """Of each mixer, in the order of the file: the most accurate cell of each width, by the bytes of state."""
    best: dict[tuple[str, int], dict] = {}
    for cell in cells:
        key = cell["mixer"], cell["hidden_size"]
        if cell["data_set"] == data_set and (key not in best or cell["accuracy"] > best[key]["accuracy"]):
            best[key] = cell
    mixers: dict[str, list[dict]] = {}
    for (mixer, _), cell in best.items():
        mixers.setdefault(mixer, []).append(cell)
    return {mixer: sorted(found, key=lambda cell: cell["state_bytes"]) for mixer, found in mixers.items()}


def slices_of(cell: dict) -> tuple[list[int], list[float]]:
    slices = sorted(cell["slices"], key=lambda part: part["slice"])
    return [part["slice"] for part in slices], [part["accuracy"] for part in slices]


def draw_state(axes, mixers: dict[str, list[dict]]) -> None:
    has_widths = len({cell["hidden_size"] for cells in mixers.values() for cell in cells}) > 1  # else the legend beside it
    for index, (mixer, cells) in enumerate(mixers.items()):
        sizes, accuracies = [cell["state_bytes"] for cell in cells], [cell["accuracy"] for cell in cells]
        axes.plot(sizes, accuracies, **_plot_style.style_of(index) | _plot_style.marker_of(index), label=mixer)
        for cell in cells if has_widths else []:
            axes.annotate(f"d {cell['hidden_size']}", (cell["state_bytes"], cell["accuracy"]), fontsize=7,
                          textcoords="offset points", xytext=(5, -9))
    axes.set_xscale("log")
    axes.set_xlabel("state of one sequence (bytes)")


def draw_slices(axes, mixers: dict[str, list[dict]], kind: str) -> None:
    for index, (mixer, cells) in enumerate(mixers.items()):
        best = max(cells, key=lambda cell: cell["accuracy"])
        style = _plot_style.style_of(index) | _plot_style.marker_of(index)
        axes.plot(*slices_of(best), **style, label=f"{mixer}, d {best['hidden_size']}")
    ticks = sorted({part["slice"] for cells in mixers.values() for cell in cells for part in cell["slices"]})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel(AXES[kind])


def draw(results: dict, out: pathlib.Path) -> None:
    drawn = [data for data in results["data_sets"] if best_cells(results["cells"], data["name"])]
    if not drawn:
        raise ValueError("no cell is finished")
    with _plot_style.pyplot() as plt:
        figure, rows = plt.subplots(len(drawn), 2, figsize=(10, 4 * len(drawn)), layout="constrained", squeeze=False)
        for (left, right), data in zip(rows, drawn):
            mixers = best_cells(results["cells"], data["name"])
            draw_state(left, mixers)
            draw_slices(right, mixers, data["slices"])
            for axes in (left, right):
                axes.set_title(data["name"])
                axes.set_ylabel("accuracy")
                axes.set_ylim(-0.03, 1.03)
                axes.legend(fontsize=8)
        _plot_style.save(figure, out)


def main(arguments: list[str] | None = None) -> int:
    parser = _plot_program.parser_of("comba.plot_mqar", __doc__)
    parser.add_argument("results", type=pathlib.Path, metavar="RESULTS.json", help="file that comba mqar or comba task wrote")
    _plot_program.add_picture_flag(parser, "accuracy.png beside the results")
    options = parser.parse_args(arguments)
    out = options.out or options.results.parent / "accuracy.png"

    def work() -> None:
        draw(_plot_program.read(options.results), out)
        print(out)

    return _plot_program.run(parser.prog, work, f"{options.results} must be results of comba mqar or comba task")


if __name__ == "__main__":
    sys.exit(main())
