"""python -m comba.plot: the picture holds the numbers of the run, and equal numbers make equal files."""

import json
import math
import xml.etree.ElementTree as xml

import pytest

from comba import plot


def write_run(run, num_steps: int) -> None:
    run.mkdir()
    lines = [{"step": s, "loss": math.log(2) * (1 + 7 / s), "tokens": 10 * s, "seconds": 0.1} for s in range(1, num_steps + 1)]
    lines.append({"step": num_steps, "heldout_bits_per_byte": 2.5})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_reads_losses_as_bits(tmp_path):
    write_run(tmp_path / "run", 3)
    metrics = plot.Metrics(tmp_path / "run")
    assert metrics.steps == [1, 2, 3]
    assert metrics.bits == pytest.approx([8, 4.5, 1 + 7 / 3])
    assert (metrics.heldout_steps, metrics.heldout_bits) == ([3], [2.5])


def test_running_mean():
    assert plot.running_mean([1, 3, 5, 7], 2) == [1, 2, 4, 6]


def test_draws_the_same_svg_twice(tmp_path, capsys):
    write_run(tmp_path / "run", 120)
    for name in ("a.svg", "b.svg"):
        assert plot.main([str(tmp_path / "run"), "--out", str(tmp_path / name), "--level", "zstd=1.6"]) == 0
    first = (tmp_path / "a.svg").read_text()
    assert xml.fromstring(first).tag.endswith("svg")
    assert "zstd: 1.600" in first
    assert first == (tmp_path / "b.svg").read_text()
    assert "b.svg" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "", "not json\n", '{"step": 1, "heldout_bits_per_byte": 2.0}\n'])
def test_a_run_without_numbers_is_one_line_of_error(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    assert plot.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("python -m comba.plot: ") and error.count("\n") == 1
