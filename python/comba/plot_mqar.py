"""Draws what comba mqar or comba task found as an SVG file: python -m comba.plot_mqar RESULTS.json --out accuracy.svg

For each data set there are two pictures. On the left, accuracy against the bytes of state that a mixer keeps of one
sequence, a point for each width; on the right, accuracy by the number of pairs, or by length, of each mixer's best
cell. Of several learning rates the best one counts.
"""

import argparse
import json
import pathlib
import sys


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
    for index, (mixer, cells) in enumerate(mixers.items()):
        sizes, accuracies = [cell["state_bytes"] for cell in cells], [cell["accuracy"] for cell in cells]
        axes.plot(sizes, accuracies, "o-", color=f"C{index}", markersize=5, label=mixer)
        for cell in cells:
            axes.annotate(f"d {cell['hidden_size']}", (cell["state_bytes"], cell["accuracy"]), fontsize=7,
                          textcoords="offset points", xytext=(4, -9))
    axes.set_xscale("log")
    axes.set_xlabel("state of one sequence (bytes)")


def draw_slices(axes, mixers: dict[str, list[dict]], kind: str) -> None:
    for index, (mixer, cells) in enumerate(mixers.items()):
        best = max(cells, key=lambda cell: cell["accuracy"])
        axes.plot(*slices_of(best), "o-", color=f"C{index}", markersize=5, label=f"{mixer}, d {best['hidden_size']}")
    axes.set_xscale("log", base=2)
    axes.set_xlabel({"pairs": "key-value pairs", "length": "length (tokens)"}[kind])


def draw(results: dict, out: pathlib.Path) -> None:
    """Two pictures beside each other for each data set that has cells."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "comba"  # equal numbers make equal files
    from matplotlib import pyplot

    drawn = [data for data in results["data_sets"] if best_cells(results["cells"], data["name"])]
    if not drawn:
        raise ValueError("no cell is finished")
    figure, rows = pyplot.subplots(len(drawn), 2, figsize=(10, 4 * len(drawn)), layout="constrained", squeeze=False)
    for (left, right), data in zip(rows, drawn):
        mixers = best_cells(results["cells"], data["name"])
        draw_state(left, mixers)
        draw_slices(right, mixers, data["slices"])
        for axes in (left, right):
            axes.set_title(data["name"])
            axes.set_ylabel("accuracy")
            axes.set_ylim(-0.03, 1.03)
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
    figure.savefig(out, metadata={"Date": None})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m comba.plot_mqar", description=__doc__.split("\n")[0])
    parser.add_argument("results", type=pathlib.Path, metavar="RESULTS.json", help="file that comba mqar or task wrote")
    parser.add_argument("--out", type=pathlib.Path, help="SVG file to write (default: accuracy.svg beside the results)")
    options = parser.parse_args(arguments)
    out = options.out or options.results.parent / "accuracy.svg"
    try:
        draw(json.loads(options.results.read_text(encoding="utf-8")), out)
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{options.results} is no results of comba mqar: no {error}" if isinstance(error, KeyError) else error
        print(f"python -m comba.plot_mqar: {what}", file=sys.stderr)
        return 1
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
