"""python -m comba.plot --loops: what the diagnoses of runs say, in curves."""

import json

import pytest

from comba import _plot_loops, plot


def quantiles(middle: float) -> list[float]:
    return [middle + offset for offset in (-0.3, -0.2, -0.1, 0, 0.05, 0.1, 0.2)]


def loop(layer: int, step: int, corrects: bool = True) -> dict:
    numbers = {"module": f"model.layers.{layer}.attn", "state_norm": 1.0 + layer, "decay": quantiles(0.5 + step / 100), "negative_share": 0.1 * layer}
    numbers |= {"key_eigenvalue": quantiles(0.2), "key_coherence": 0.3, "memory": quantiles(10), "decay_memory": quantiles(100), "feedback": 0.7}
    return numbers | ({"query_ratio": quantiles(1.5), "query_cosine": 0.9, "correction": 0.02} if corrects else {})


def write_run(run, corrects: bool = True, diagnosed: bool = True) -> str:
    run.mkdir(parents=True)
    lines = [{"step": step, "loss": 3.0 / step, "learning_rate": 1e-3} for step in range(1, 21)]
    if diagnosed:
        lines += [{"step": step, "control_loops": [loop(layer, step, corrects) for layer in (0, 1)]} for step in (0, 10, 20)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(run)


def test_values_are_those_of_a_layer_or_means_of_several(tmp_path):
    write_run(tmp_path / "run")
    loops = _plot_loops.Loops.of_run(tmp_path / "run")
    assert loops.steps == [0, 10, 20] and loops.modules == ["model.layers.0.attn", "model.layers.1.attn"]
    assert loops.values("decay", [1])[2] == pytest.approx((0.5, 0.7, 0.8))
    assert [middle for _, middle, _ in loops.values("state_norm", [0, 1])] == [1.5] * 3
    assert loops.values("absent", [0]) is None


def panels_of(picture) -> set[str]:
    text = picture.read_text()
    return {panel.key for panel in _plot_loops.PANELS if f"<!-- {panel.title} -->" in text}


def test_one_run_has_a_curve_a_layer_and_several_a_curve_each(tmp_path, capsys):
    one, other = write_run(tmp_path / "one"), write_run(tmp_path / "other", corrects=False)
    assert plot.main([one, "--loops", "--out", str(tmp_path / "layers.svg")]) == 0
    assert plot.main([one, other, "--loops", "--out", str(tmp_path / "runs.svg")]) == 0
    assert plot.main([other, "--loops", "--out", str(tmp_path / "uncorrected.svg")]) == 0
    layers, runs = (tmp_path / "layers.svg").read_text(), (tmp_path / "runs.svg").read_text()
    assert "<!-- layer 0 -->" in layers and "<!-- layer 1 -->" in layers
    assert "<!-- one -->" in runs and "<!-- other -->" in runs and "<!-- layer 0 -->" not in runs
    every = {panel.key for panel in _plot_loops.PANELS}
    assert panels_of(tmp_path / "layers.svg") == panels_of(tmp_path / "runs.svg") == every
    assert panels_of(tmp_path / "uncorrected.svg") == every - {"query_ratio", "query_cosine", "correction"}
    assert plot.main([one, "--loops"]) == 0
    assert (tmp_path / "one" / "control-loops.png").exists()
    assert "control-loops.png" in capsys.readouterr().out


def test_a_value_that_is_not_finite_leaves_a_gap(tmp_path):
    write_run(tmp_path / "run")
    broken = loop(0, 20) | {"state_norm": None, "decay": [None] * 7}
    with (tmp_path / "run" / "metrics.jsonl").open("a") as metrics:
        metrics.write(json.dumps({"step": 30, "control_loops": [broken, loop(1, 20)]}) + "\n")
    assert plot.main([str(tmp_path / "run"), "--loops", "--out", str(tmp_path / "gap.svg")]) == 0
    assert _plot_loops.Loops.of_run(tmp_path / "run").values("decay", [0])[3] != pytest.approx((0, 0, 0))


def test_a_run_without_diagnoses_is_one_line_of_error(tmp_path, capsys):
    run = write_run(tmp_path / "run", diagnosed=False)
    assert plot.main([run, "--loops"]) == 1
    assert capsys.readouterr().err == "python -m comba.plot: run has no diagnoses: comba train --diagnostics N makes them\n"
