"""python -m comba.plot_mqar: of several learning rates the best counts, and equal numbers make equal files."""

import json
import xml.etree.ElementTree as xml

import pytest

from comba import plot_mqar


def cell(mixer: str, width: int, rate: float, accuracy: float) -> dict:
    slices = [{"slice": 16, "accuracy": accuracy - 0.1}, {"slice": 4, "accuracy": accuracy + 0.1}]
    return {"data_set": "mixture", "mixer": mixer, "hidden_size": width, "learning_rate": rate, "accuracy": accuracy,
            "state_bytes": 100 * width, "slices": slices}


RESULTS = {
    "data_sets": [{"name": "mixture", "slices": "pairs"}, {"name": "without-cells", "slices": "pairs"}],
    "cells": [cell("comba", 128, 1e-3, 0.7), cell("comba", 64, 1e-3, 0.5), cell("comba", 64, 1e-2, 0.6),
              cell("softmax", 64, 1e-3, 0.9), cell("comba", 64, 3e-2, 0.1)],
}


def test_the_best_rate_of_each_width_counts():
    best = plot_mqar.best_cells(RESULTS["cells"], "mixture")
    assert list(best) == ["comba", "softmax"]
    assert [(c["hidden_size"], c["learning_rate"], c["accuracy"]) for c in best["comba"]] == [(64, 1e-2, 0.6), (128, 1e-3, 0.7)]
    assert plot_mqar.best_cells(RESULTS["cells"], "without-cells") == {}


def test_slices_stand_in_their_order():
    assert plot_mqar.slices_of(cell("comba", 64, 1e-3, 0.5)) == ([4, 16], [0.6, 0.4])


def test_draws_the_same_picture_twice(tmp_path, capsys):
    results = tmp_path / "results.json"
    results.write_text(json.dumps(RESULTS))
    for name in ("a.svg", "b.svg"):
        assert plot_mqar.main([str(results), "--out", str(tmp_path / name)]) == 0
    first = (tmp_path / "a.svg").read_text()
    assert xml.fromstring(first).tag.endswith("svg")
    assert "<!-- softmax -->" in first and "<!-- d 128 -->" in first and "<!-- without-cells -->" not in first
    assert first == (tmp_path / "b.svg").read_text()
    assert plot_mqar.main([str(results)]) == 0
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert "accuracy.png" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"data_sets": [], "cells": []}'])
def test_results_that_are_none_are_one_line_of_error(tmp_path, capsys, content):
    results = tmp_path / "results.json"
    if content is not None:
        results.write_text(content)
    assert plot_mqar.main([str(results)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("python -m comba.plot_mqar: ") and error.count("\n") == 1
