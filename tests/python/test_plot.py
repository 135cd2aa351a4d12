"""python -m comba.plot: pictures hold the numbers of runs and benchmarks; what cannot be drawn is told in one line."""

import json
import math
import struct
import subprocess
import sys
import xml.etree.ElementTree as xml

import pytest

from comba import _plot_benchmarks, _plot_runs, plot
from rules import tree

BENCHMARKS = tree.ROOT / "docs/benchmarks"


def write_run(run, num_steps: int, tail: str = "", **fields) -> str:
    """A run of 10 tokens and 0.1 s a step; fields replace what each step says, None leaves it out."""
    run.mkdir(parents=True)
    lines = []
    for s in range(1, num_steps + 1):
        step = {"step": s, "loss": math.log(2) * (1 + 7 / s), "learning_rate": 3e-4, "gradient_norm": 1.0, "tokens": 10 * s, "seconds": 0.1}
        lines.append({name: value for name, value in (step | fields).items() if value is not None})
    lines.append({"step": num_steps, "heldout_bits_per_byte": 2.5, "heldout_nats": 1.0})
    lines.append({"step": num_steps, "sample": "Once"})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return str(run)


def error_of(capsys, *arguments) -> str:
    """What a call that fails says, which is one line."""
    assert plot.main([str(argument) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("python -m comba.plot: ") and error.count("\n") == 1
    return error


def test_reads_what_the_steps_say(tmp_path):
    write_run(tmp_path / "run", 3)
    metrics = _plot_runs.Metrics(tmp_path / "run")
    assert metrics.steps == [1, 2, 3]
    assert metrics.bits == pytest.approx([8, 4.5, 1 + 7 / 3])
    assert (metrics.heldout_steps, metrics.heldout_bits) == ([3], [2.5])
    assert metrics.learning_rate == [3e-4] * 3
    assert metrics.throughput(1) == pytest.approx([100] * 3)
    assert metrics.position("tokens") == [10, 20, 30]
    assert metrics.position("time") == pytest.approx([0.1, 0.2, 0.3])
    assert "3 steps" in metrics.summary() and "held-out 2.500" in metrics.summary() and "100 tokens/s" in metrics.summary()


def test_throughput_of_a_run_whose_log_skips_steps(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "loss": 1, "tokens": 50, "seconds": 0.1}\n{"step": 9, "loss": 1, "tokens": 90, "seconds": 0.2}\n')
    first, second = _plot_runs.Metrics(tmp_path).throughput(1)
    assert math.isnan(first) and second == pytest.approx(50)  # 10 tokens in 0.2 s


def test_running_mean():
    assert _plot_runs.running_mean([1, 3, 5, 7], 1) == [1, 3, 5, 7]
    assert _plot_runs.running_mean([1, 3, 5, 10], 3) == [1, 3, 6, 7.5]
    means = _plot_runs.running_mean([2, math.nan, 4, math.inf, 6], 3)
    assert [means[0], means[2], means[4]] == [2, 4, 6] and math.isnan(means[1]) and math.isnan(means[3])


def test_draws_the_same_svg_twice(tmp_path, capsys):
    run = write_run(tmp_path / "run", 120)
    for name in ("a.svg", "b.svg"):
        assert plot.main([run, "--out", str(tmp_path / name), "--level", "zstd=1.6"]) == 0
    first = (tmp_path / "a.svg").read_text()
    assert xml.fromstring(first).tag.endswith("svg")
    for text in ("zstd: 1.600", "learning rate", "gradient norm", "tokens per second", "held-out"):
        assert f"<!-- {text} -->" in first
    assert first == (tmp_path / "b.svg").read_text()
    assert "b.svg" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.svg", "b.svg", "run"]


def test_runs_of_any_length_and_state_beside_each_other(tmp_path, capsys):
    """Of the same name; in progress; with a step that is not finite; from a program that said less."""
    one = write_run(tmp_path / "one" / "run", 60, tail='{"step": 61, "lo')
    other = write_run(tmp_path / "other" / "run", 1)
    bare = write_run(tmp_path / "bare", 7, learning_rate=None, gradient_norm=None, seconds=None)
    nan = write_run(tmp_path / "nan", 7)
    (tmp_path / "nan" / "metrics.jsonl").open("a").write('{"step": 8, "loss": null}\n')
    assert plot.main([one, other, bare, nan, "--over", "tokens"]) == 0
    printed = capsys.readouterr().out
    assert "one/run: 60 steps" in printed and "other/run: 1 steps" in printed and "nan: 8 steps" in printed
    picture = (tmp_path / "one" / "run" / "training.png").read_bytes()
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 1000 and height > 700


def test_times_have_the_unit_that_fits_the_runs(tmp_path):
    write_run(tmp_path / "hours", 3, seconds=4000.0)
    across = _plot_runs.Across([_plot_runs.Metrics(tmp_path / "hours")], "time")
    assert across.label.startswith("hours") and across.positions[0][-1] == pytest.approx(12000 / 3600)


@pytest.mark.parametrize(
    "content, told",
    [
        (None, "is no run: there is no metrics.jsonl in it"),
        ("", "no training step yet"),
        ("not json\n", "line 1 is no JSON"),
        ('{"loss": 1}\n', "line 1 has no step"),
        ('{"step": 1, "heldout_bits_per_byte": 2.0}\n', "no training step yet"),
    ],
)
def test_a_run_without_numbers_is_one_line_of_error(tmp_path, capsys, content, told):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    assert told in error_of(capsys, tmp_path)


def test_what_is_no_run_is_told(tmp_path, capsys):
    write_run(tmp_path / "run", 2)
    checkpoint = tmp_path / "run" / "checkpoint-000002"
    checkpoint.mkdir()
    assert f"the run is {tmp_path / 'run'}" in error_of(capsys, checkpoint)
    assert "is no directory" in error_of(capsys, tmp_path / "nowhere")
    write_run(tmp_path / "silent", 2, tokens=None)
    assert "does not say its tokens" in error_of(capsys, tmp_path / "silent", "--over", "tokens")


def test_without_matplotlib_one_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    run = write_run(tmp_path / "run", 2)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install matplotlib" in error_of(capsys, run)


@pytest.mark.parametrize(
    "arguments, told",
    [
        ([], "required: RUN"),
        (["run", "--out", "picture.gif"], "must end in .png, .svg, .pdf; got 'picture.gif'"),
        (["run", "--out", "no/folder/picture.png"], "there is no folder no/folder"),
        (["run", "--level", "zstd"], "must be NAME=BITS; got 'zstd'"),
        (["run", "--level", "zstd=few"], "must be NAME=BITS; got 'zstd=few'"),
        (["run", "--over", "loss"], "invalid choice: 'loss'"),
        (["run", "results.json"], "either runs or results of benchmarks; got both"),
        (["results.json", "--over", "step"], "--level, --over and --loops are for runs"),
        (["run", "--loops", "--over", "step"], "--level and --over are for losses; got --loops too"),
    ],
)
def test_wrong_usage(capsys, arguments, told):
    with pytest.raises(SystemExit) as stopped:
        plot.main(arguments)
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_results_of_the_benchmarks_are_read():
    operator = _plot_benchmarks.read([BENCHMARKS / "operator-cpu.json"])
    row = "forward gated_delta f32 B1 T2048 H16 D128"
    results = json.loads((BENCHMARKS / "operator-cpu.json").read_text())
    medians = {side: next(r["median_seconds"] for r in results[side]["rows"] if r["name"] == row) for side in ("comba", "transformers")}
    assert {who: time.median for who, time in operator.times[row].items()} == pytest.approx(medians)
    assert "GFLOP/s" in operator.notes[row]
    (step,) = _plot_benchmarks.read([BENCHMARKS / "training-cpu.json"]).times.values()
    assert step["comba"].low <= step["comba"].median < step["plain PyTorch"].median
    assert len(_plot_benchmarks.read([BENCHMARKS / "transformers-cpu.json"]).times) == 18


def gpu_results() -> dict:
    row = {"name": "forward", "us": 100.0, "p10_us": 95.0, "p90_us": 120.0, "flop_per_second": 1e14, "bytes_per_second": 1e12, "of_copy": 0.5}
    peers = {"fla": {"us": 180.0}, "other": {"us": 130.0}, "refuses": {"refusal": "no"}}
    return {"context": {"device": "a GPU", "program": "torch"}, "ceilings": {}, "rows": [row | {"peers": peers}, {"name": "wrong", "error": "x"}]}


def test_results_of_several_files_stand_beside_each_other(tmp_path, capsys):
    results = gpu_results()
    (tmp_path / "before.json").write_text(json.dumps(results))
    results["rows"][0]["us"] = 90.0
    (tmp_path / "after.json").write_text(json.dumps(results))
    assert plot.main([str(tmp_path / "before.json"), str(tmp_path / "after.json"), "--out", str(tmp_path / "both.svg")]) == 0
    text = (tmp_path / "both.svg").read_text()
    for expected in ("comba, before", "comba, after", "fla, after", "time of a call"):
        assert expected in text
    assert plot.main([str(tmp_path / "before.json")]) == 0
    assert (tmp_path / "before.png").exists()
    capsys.readouterr()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": []}', '{"context": {}, "rows": [{"name": "x"}]}'])
def test_what_is_no_result_is_one_line_of_error(tmp_path, capsys, content):
    (tmp_path / "results.json").write_text(content)
    assert "holds no results of a benchmark" in error_of(capsys, tmp_path / "results.json")


def test_the_module_is_a_program():
    run = subprocess.run([sys.executable, "-m", "comba.plot", "--help"], capture_output=True, text=True, check=True)
    assert "throughput" in run.stdout and "torch" not in run.stderr
