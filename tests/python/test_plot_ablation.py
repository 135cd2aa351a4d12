"""python -m comba.plot_ablation: differences are taken seed by seed, and said to be none where the spread is larger."""

import json
import math
import os
import xml.etree.ElementTree as xml

import pytest

from comba import plot_ablation


def cell(variant: str, seed: int, loss: float | None, recalled: float | None = 2.0, **changes) -> dict:
    heldout = {"heldout": {"loss": loss, "bits_per_byte": loss / 2, "tokens": 1000, "recalled_loss": recalled, "recalled_tokens": 50}} if loss else {}
    return {"variant": variant, "seed": seed, "changes": changes, "paper": {"recall": 30.4} if variant == "comba" else {}, "model": {},
            "device": "NVIDIA H200", "threads": 2, "program": "comba 0.1.0", "commit": "0123456789abcdef", "parameters": 23_000_000,
            "tokens": 100, "seconds": 60.0, "diverged": loss is None, "train_loss": loss, "curve": [], **heldout}


RESULTS = {
    "kind": "ablation",
    "train": {"steps": 10, "batch_size": 2, "context_length": 5, "learning_rate": 1e-3, "dtype": "bf16"},
    "data": {"md5": "abc", "tokenizer": "bytes", "train": {"bytes": 1_000_000}},
    "cells": [
        cell("worse", 1, 3.11, use_output_gate=False), cell("comba", 1, 3.0), cell("comba", 2, 3.2), cell("comba", 3, 3.4),
        cell("worse", 2, 3.30, use_output_gate=False), cell("worse", 3, 3.51, 2.5, use_output_gate=False),
        cell("even", 1, 3.1, correction_factor=1), cell("even", 2, 3.1, correction_factor=1),
        cell("lost", 1, None, model_type="gated_deltanet"),
    ],
}


def test_differences_are_taken_seed_by_seed():
    base, worse, even, lost = plot_ablation.lines_of(RESULTS)
    assert [line.name for line in (base, worse, even, lost)] == ["comba", "worse", "even", "lost"]
    found = worse.difference(base, "loss")
    assert (round(found.mean, 6), found.count, found.verdict()) == (0.106667, 3, "worse")  # 0.11, 0.10, 0.11
    assert found.margin == pytest.approx(4.303 * found.deviation / math.sqrt(3))
    assert even.difference(base, "loss").verdict() == "no difference seen"  # +0.1 and -0.1
    assert worse.difference(base, "recalled_loss").verdict() == "no difference seen"  # one seed of three
    assert lost.difference(base, "loss") is None
    assert plot_ablation.Estimate.of([0.1]).verdict() == "no difference seen"  # one seed says nothing
    assert plot_ablation.Estimate.of([-0.1, -0.1, -0.1001]).verdict() == "better"


def test_the_table_says_it(tmp_path):
    text = plot_ablation.table(RESULTS)
    lines = text.splitlines()
    assert lines[2].startswith("| `comba` | the base | 23.00 | 3 | 3.2000 ± 0.2000 | 1.6000 |  |") and "30.4" in lines[2]
    assert "use_output_gate = false" in lines[3] and "| +0.1067 ± 0.0143, **worse** |" in lines[3]
    assert "gated_deltanet" in lines[5] and "diverged" in lines[5]
    assert "NVIDIA H200" in lines[-1] and "commit 0123456789" in lines[-1] and "1.0 MB" in lines[-1]
    counts = {line.count("|") for line in lines[:6]}
    assert len(counts) == 1


def test_draws_the_same_picture_twice(tmp_path, capsys):
    results = tmp_path / "results.json"
    results.write_text(json.dumps(RESULTS))
    for name in ("a.svg", "b.svg"):
        assert plot_ablation.main([str(results), "--out", str(tmp_path / name)]) == 0
    first = (tmp_path / "a.svg").read_text()
    assert xml.fromstring(first).tag.endswith("svg") and first == (tmp_path / "b.svg").read_text()
    for text in ("worse", "even", "diverged", "recalled tokens"):
        assert f"<!-- {text} -->" in first
    assert plot_ablation.main([str(results), "--table", str(tmp_path / "table.md")]) == 0
    assert (tmp_path / "table.md").read_text() == plot_ablation.table(RESULTS)
    assert not (tmp_path / "ablation.png").exists()


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"cells": []}', '{"cells": [{"variant": "x"}]}'])
def test_results_that_are_none_are_one_line_of_error(tmp_path, capsys, content):
    results = tmp_path / "results.json"
    if content is not None:
        results.write_text(content)
    assert plot_ablation.main([str(results)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("python -m comba.plot_ablation: ") and error.count("\n") == 1


def test_a_table_goes_into_a_pipe_and_does_not_replace_it(tmp_path):
    results = tmp_path / "results.json"
    results.write_text(json.dumps(RESULTS))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # so that writing does not wait for a reader
    assert plot_ablation.main([str(results), "--table", str(pipe)]) == 0
    assert pipe.is_fifo() and os.read(reader, 1 << 16).decode() == plot_ablation.table(RESULTS)
    os.close(reader)
