"""benchmarks/training_gap.py, and what docs/gpu-training.md takes from it."""

import json
import subprocess
import sys

import pytest

from rules import tree

SCRIPT = tree.ROOT / "benchmarks/training_gap.py"
RUNS = tree.ROOT / "docs/gpu-training"


def gap(folder, *words) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, folder, *words], capture_output=True, text=True)


def write_run(folder, name: str, losses: list[float]) -> None:
    (folder / name).mkdir()
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in enumerate(losses, 1)]
    lines.append(json.dumps({"step": len(losses), "heldout_bits_per_byte": 1.0}))
    (folder / name / "metrics.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("offset", "code"), [(0.05, 0), (-0.05, 0), (0.25, 1)])
def test_the_mean_gap_is_held_against_the_spread_of_the_seeds(tmp_path, offset, code):
    for seed, level in (("1", 2.0), ("2", 2.1), ("3", 1.9)):
        write_run(tmp_path, f"cpu-seed{seed}", [9.0, *[level] * 4])
        write_run(tmp_path, f"gpu-seed{seed}", [1.0, *[level + offset] * 4])
    result = gap(tmp_path, "--last", "4")
    assert result.returncode == code
    assert f"| 2 | 2.1000 | {2.1 + offset:.4f} | {offset:+.4f} |" in result.stdout
    assert f"Mean gap {offset:+.4f} nats a token over the last 4 steps; spread of the seeds 0.2000." in result.stdout


def test_runs_that_cannot_be_compared_are_named(tmp_path):
    write_run(tmp_path, "cpu-seed1", [1.0] * 4)
    assert "cpu-seed1 without gpu-seed1" in gap(tmp_path).stderr
    write_run(tmp_path, "gpu-seed1", [1.0] * 3)
    assert "two seeds; got 1" in gap(tmp_path).stderr
    for name, steps in (("cpu-seed2", 4), ("gpu-seed2", 4)):
        write_run(tmp_path, name, [1.0] * steps)
    assert "got 4 and 3 of seed 1" in gap(tmp_path, "--last", "2").stderr


def test_the_page_has_the_table_of_the_runs_beside_it():
    result = gap(RUNS)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() in (tree.ROOT / "docs/gpu-training.md").read_text()
