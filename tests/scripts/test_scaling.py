"""benchmarks/scaling.py: what it makes of a trace, and a whole run in two processes of this machine."""

import json
import subprocess
import sys

import pytest

from rules import tree
from test_bench import bench_script

sys.path.insert(0, str(tree.ROOT / "benchmarks"))

import scaling  # noqa: E402


def kernel(name: str, start_us: float, us: float) -> dict:
    return {"cat": "kernel", "name": name, "ts": start_us, "dur": us}


def test_what_is_exposed_is_the_exchange_beside_which_nothing_runs():
    trace = {"traceEvents": [
        kernel("gemm", 1000, 1000), kernel("ncclDevKernel_AllGather", 1500, 1000), kernel("adam", 2200, 100),
        kernel("gemm", 3000, 500), {"cat": "cpu_op", "name": "step", "ts": 0, "dur": 9000},
    ]}  # fmt: skip
    told = scaling.timeline(trace)
    assert told["ms"] == pytest.approx(2.5) and told["compute_ms"] == pytest.approx(1.6) and told["exchange_ms"] == pytest.approx(1.0)
    assert told["only_exchange_ms"] == pytest.approx(0.4)
    assert told["spans"] == {"compute": [[0, 1.0], [1.2, 1.3], [2.0, 2.5]], "exchange": [[0.5, 1.5]]}
    assert scaling.merged([(3.0, 4.0), (0.0, 1.0), (1.02, 2.0)], 0.05) == [[0.0, 2.0], [3.0, 4.0]]


def test_wrong_usage_is_told():
    for words, message in ((["--data", "."], "required"), (["--data", "nowhere", "--bytes", ".", "--json", "x"], "there is no nowhere")):
        told = subprocess.run([sys.executable, tree.ROOT / "benchmarks/scaling.py", *words], capture_output=True, text=True)
        assert told.returncode == 2 and message in told.stderr


@pytest.mark.long
def test_two_processes_of_this_machine(comba_program, tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"{n} squared is {n * n}.\n" for n in range(4000)))
    subprocess.run([comba_program, "data", "pack", "text.txt", "--heldout", "tail", "--out", "bytes.data"], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "tiny.toml").write_text('[model]\nfile = "configs/comba-tiny.json"\n[train]\ncontext_length = 64\n')
    given = {"--data": "bytes.data", "--bytes": "bytes.data", "--config": "tiny.toml", "--json": "out.json", "--folder": "runs"}
    words = [word for flag, name in given.items() for word in (flag, tmp_path / name)]
    subprocess.run([sys.executable, tree.ROOT / "benchmarks/scaling.py", *words, "--device", "cpu", "--batch-size", "2", "--steps", "5"], check=True)
    results = json.loads((tmp_path / "out.json").read_text())
    assert [row["stage"] for row in results["rows"]] == ["", "plain", "ZeRO-1", "ZeRO-2"]
    assert results["equality"]["repeats_its_bits"] and results["equality"]["resumed_has_the_same_bits"] and results["killed"]["resumed"]
    assert results["equality"]["greatest_difference_of_loss"] < 1e-4 and len(results["killed"]["messages"]) == 1
    bench_script()  # puts scripts/ on the path
    import gpu_pages

    assert "repeat" not in (page := "\n".join(gpu_pages.scaling_section(results))) and "DIFFER" not in page and "| ZeRO-2 |" in page
