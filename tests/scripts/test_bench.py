"""docs/benchmarks.md says what its results file says."""

import importlib.util
import json
import subprocess

import pytest

from rules import tree


def bench_script():
    spec = importlib.util.spec_from_file_location("bench", tree.ROOT / "scripts/bench.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_the_one_its_results_make():
    bench = bench_script()
    assert bench.PAGE.read_text() == bench.page_of_the_results()


def test_a_run_writes_rows_with_their_ceilings(comba_program, tmp_path):
    words = ["bench", "operator", "--filter", "ward gated_delta f32 B1 T2048 H16 D128$"]
    few = ["--repetitions", "1", "--min-seconds", "0.001", "--json", tmp_path / "rows.json"]
    bench = subprocess.run([comba_program, *words, *few], capture_output=True, text=True)
    assert bench.returncode == 0, bench.stderr
    ceiling, forward, training = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert ceiling["name"] == "sgemm 2048" and "ceiling" not in ceiling
    assert forward["ceiling"] == training["ceiling"] == "sgemm 2048"
    assert forward["work"] == 163840 * 2048 * 16 and training["work"] == (163840 + 393216) * 2048 * 16
    assert forward["rate"] == pytest.approx(forward["work"] / forward["median_seconds"])
    assert forward["of_ceiling"] == pytest.approx(forward["rate"] / ceiling["rate"])
    assert forward["name"] in bench.stdout


def comba_bench(program, *words) -> subprocess.CompletedProcess:
    return subprocess.run([program, "bench", "operator", *words], capture_output=True, text=True)


def test_rows_of_a_gpu_have_the_names_that_peers_have(comba_program, monkeypatch):
    monkeypatch.syspath_prepend(tree.ROOT / "benchmarks")
    from gpu.cases import ROWS

    listed = comba_bench(comba_program, "--device", "cuda", "--list").stdout.splitlines()
    assert sorted(name for name in listed if not name.startswith("backward ")) == sorted(
            row.name for row in ROWS if row.operator != "forward_backward"
        )
    assert [name for name in listed if name.startswith("backward ")]


def test_a_gpu_is_timed_or_told_to_be_missing(comba_program, tmp_path):
    words = ["--device", "cuda", "--filter", "comba 1x2048|decode_step .*B32 T1 .*f32"]
    bench = comba_bench(comba_program, *words, "--repetitions", "2", "--json", tmp_path / "rows.json")
    if bench.returncode != 0:
        assert bench.returncode == 1 and "--device cuda needs a" in bench.stderr and bench.stderr.count("\n") == 1
        return
    results = json.loads((tmp_path / "rows.json").read_text())
    forward, *_, decode = results["rows"]
    assert forward["bytes"] == 4 * 2 * 2048 * 16 * 128 and decode["bytes"] == 2 * 32 * 16 * 128 * 128 * 4
    assert forward["flop"] == 163840 * 2048 * 16
    assert forward["flop_per_second"] == pytest.approx(forward["flop"] / forward["us"] * 1e6)
    assert 0 < forward["of_gemm"] < 1 and 0 < decode["of_copy_of_same_bytes"] < 1.2
    assert results["cold_starts"][0]["first_seconds"] > results["cold_starts"][0]["second_seconds"]


def test_generation_is_timed_or_a_gpu_told_to_be_missing(comba_program, tmp_path):
    words = ["decode", "--model", tree.ROOT / "configs/comba-tiny.json", "--batch-size", "1,3", "--steps", "4"]
    words += ["--prompt-tokens", "256", "--json", tmp_path / "decode.json"]
    bench = subprocess.run([comba_program, "bench", *map(str, words)], capture_output=True, text=True)
    if bench.returncode != 0:
        assert bench.returncode == 1 and "--device cuda needs a" in bench.stderr and bench.stderr.count("\n") == 1
        return
    results = json.loads((tmp_path / "decode.json").read_text())
    one, three = results["decode"]
    assert (one["batch_size"], three["batch_size"]) == (1, 3) and three["bytes"] > one["bytes"]
    assert one["floor_ms"] == pytest.approx(one["bytes"] / results["ceilings"]["copy_bytes_per_second"] * 1e3)
    assert results["prefill"]["ms"] > results["prefill"]["products_ms"] > 0


def test_wrong_usage_is_told_in_one_line(comba_program):
    for words, told in (
        (["operator", "--device", "cuda", "--threads", "2"], "--threads is for --device cpu"),
        (["operator", "--device", "cuda", "--filter", "nothing like this"], "matches no row"),
        (["operator", "--filter", "nothing like this"], "matches no row"),
        (["operator", "--filter", "("], "must be a regular expression"),
        (["operator", "--device", "toaster"], "toaster"),
        (["decode"], "--model is required (see comba bench decode --help)"),
        (["decode", "--model", "x.json", "--state-dtype", "f8"], "f8"),
        ([], "subcommand"),
    ):
        bench = subprocess.run([comba_program, "bench", *words], capture_output=True, text=True)
        assert bench.returncode == 2 and told in bench.stderr and bench.stderr.count("\n") == 1
