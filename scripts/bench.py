"""Measures the operator on this machine's CPU, and the published implementations beside it, and writes the results:
docs/benchmarks/operator-cpu.json, and from it docs/benchmarks.md (--table only writes that again)."""

import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs/benchmarks/operator-cpu.json"
PAGE = ROOT / "docs/benchmarks.md"
REQUIREMENTS = "scripts/requirements-bench.txt"

INTRODUCTION = """# Benchmarks

Made by `make bench` (`scripts/bench.py`) from [operator-cpu.json](benchmarks/operator-cpu.json), which holds every repetition.
Each time is the median of the repetitions; rows take turns, so that a slow minute of the machine meets all of them.
Every rate stands beside the best this machine did in the same run: a large matrix product, or an update in place of as many bytes.
FLOP are those of the chunk form (163,840 forward and 393,216 backward a token and head at D = 128); bytes are those of the state, read and written.

## The operator on CPU
"""


def measure() -> None:
    if not _installed():
        subprocess.run(_install_command(), cwd=ROOT, check=True)
    ours, peer = ROOT / "build/operator.json", ROOT / "build/transformers.json"
    subprocess.run(["build/release/bin/comba", "bench", "operator", "--device", "cpu", "--json", ours], cwd=ROOT, check=True)
    subprocess.run([sys.executable, "benchmarks/peers/transformers_delta_rule.py", "--json", peer], cwd=ROOT, check=True)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True)
    results = {
        "command": "make bench",
        "commit": commit.stdout.strip(),
        "comba": json.loads(ours.read_text()),
        "transformers": json.loads(peer.read_text()),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def _installed() -> bool:
    return subprocess.run([sys.executable, "-c", "import transformers"], capture_output=True).returncode == 0


def _install_command() -> list[str]:
    uv = ["uv", "pip", "install", "--python", sys.executable, "-r", REQUIREMENTS]
    pip = [sys.executable, "-m", "pip", "install", "-r", REQUIREMENTS]
    has_pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0
    return pip if has_pip else uv


def page(results: dict) -> str:
    """The text of docs/benchmarks.md."""
    ours, peer = results["comba"], results["transformers"]
    context = ours["context"]
    lines = [
        INTRODUCTION,
        f"{context['processor']}, {context['threads']} threads, implementation {context['implementation']}, "
        f"{context['program']}, commit {results['commit']}.\n",
        "| row | ms | rate | of its ceiling |",
        "|---|---:|---:|---|",
    ]
    for row in ours["rows"]:
        unit = "GFLOP/s" if row["unit"] == "FLOP" else "GB/s"
        share = f"{row['of_ceiling']:.0%} of {row['ceiling']}" if "ceiling" in row else ""
        lines.append(f"| {row['name']} | {row['median_seconds'] * 1e3:.3f} | {row['rate'] / 1e9:.1f} {unit} | {share} |")
    lines += [
        f"\n### Beside {peer['context']['program']}\n",
        "`torch_chunk_gated_delta_rule` and `torch_recurrent_gated_delta_rule` of `models.qwen3_next`, "
        f"{peer['context']['threads']} threads. The matrix product, measured on both sides, shows how alike the machine was.\n",
        "| row | theirs, ms | ours, ms | ratio |",
        "|---|---:|---:|---:|",
    ]
    our_seconds = {row["name"]: row["median_seconds"] for row in ours["rows"]}
    for row in peer["rows"]:
        theirs, mine = row["median_seconds"], our_seconds[row["name"]]
        lines.append(f"| {row['name']} | {theirs * 1e3:.2f} | {mine * 1e3:.2f} | {theirs / mine:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="write docs/benchmarks.md from the results there are")
    if not parser.parse_args().table:
        measure()
    PAGE.write_text(page(json.loads(RESULTS.read_text())))
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
