"""benchmarks/train_peers.py on a CPU: comba's rows, peers that are missing or slow, and the page they make."""

import json
import subprocess
import sys

import pytest

from rules import tree
from test_bench import bench_script

SMALL = ["--device", "cpu", "--batch-size", "2", "--micro-batch-size", "1", "--context-length", "64", "--steps", "2"]


def train_peers(*words) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, tree.ROOT / "benchmarks/train_peers.py", *words], capture_output=True, text=True)


def results_of(tmp_path, *words) -> dict:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": 264, "num_heads": 2}
    (tmp_path / "transformer.json").write_text(json.dumps({**sizes, "norm_eps": 1e-6, "initializer_range": 0.02, "rope_theta": 1e4}))
    files = ["--model", tree.ROOT / "configs/comba-tiny.json", "--transformer", tmp_path / "transformer.json", "--json", tmp_path / "out.json"]
    run = train_peers(*files, *SMALL, *words)
    assert run.returncode == 0, run.stderr
    return json.loads((tmp_path / "out.json").read_text())


def page(results: dict) -> str:
    bench_script()  # puts scripts/ on the path
    import gpu_pages

    return "\n".join(gpu_pages.train_peers_section(results))


def test_rows_of_comba_and_a_peer_that_is_missing(comba_program, tmp_path):
    results = results_of(tmp_path, "--peers", "fla_comba")  # not installed, or without a GPU for its kernels
    assert [row["passes"] for row in results["rows"]] == [1, 2] and list(results["missing"]) == ["fla_comba"]
    row = results["rows"][0]
    assert row["tokens_per_second"] == pytest.approx(2 * 64 / row["median_step_seconds"]) and len(row["step_seconds"]) == 2
    told = page(results)
    assert "| comba, 1 pass a step |" in told and "| comba, 2 passes a step |" in told and "Missing: flash-linear-attention" in told


@pytest.mark.long
def test_a_compiled_transformer(comba_program, tmp_path):
    results = results_of(tmp_path, "--peers", "compiled_transformer")
    assert results["missing"] == {} and results["rows"][-1]["parameters"] == 264 * 32 + 32 * (4 * 32 + 3 * 64) + 3 * 32
    assert 5 < results["rows"][-1]["loss"] < 6
    assert "| transformer in PyTorch, torch.compile" in page(results)


def test_wrong_usage_is_told():
    for words, message in ((["--peers", "fla"], "got fla"), (["--steps", "0"], "at least 1"), (["--model", "nowhere"], "there is no nowhere"), ([], "--json")):
        told = train_peers(*words, *(["--json", "x"] if words else []))
        assert told.returncode == 2 and message in told.stderr
