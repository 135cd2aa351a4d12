"""Measures the operator on this machine's CPU, and the published implementations beside it, and writes the results:
docs/benchmarks/operator-cpu.json; then training steps, docs/benchmarks/training-cpu.json, and the layers of transformers
as they are and patched, docs/benchmarks/transformers-cpu.json; and from all docs/benchmarks.md (--table only writes that
again). What was measured on GPUs stands there too: --gpu, --gpu-training, --train-peers, --gpu-decode and --scaling take
new results of benchmarks/peers.py, `comba bench train`, benchmarks/train_peers.py, `comba bench decode` and
benchmarks/scaling.py, and measure nothing."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import gpu_pages

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs/benchmarks/operator-cpu.json"
TRAINING = ROOT / "docs/benchmarks/training-cpu.json"
LAYERS = ROOT / "docs/benchmarks/transformers-cpu.json"
GPU = ROOT / "docs/benchmarks/operator-gpu.json"
# What was measured of whole models on GPUs, and how the page shows it.
MODELS_ON_GPUS = {
    ROOT / "docs/benchmarks/training-gpu.json": gpu_pages.training_section,
    ROOT / "docs/benchmarks/train-peers-gpu.json": gpu_pages.train_peers_section,
    ROOT / "docs/benchmarks/decode-gpu.json": gpu_pages.decode_section,
    ROOT / "docs/benchmarks/scaling-gpu.json": gpu_pages.scaling_section,
}
PAGE = ROOT / "docs/benchmarks.md"

INTRODUCTION = """# Benchmarks

Made by `make bench` (`scripts/bench.py`) from [operator-cpu.json](benchmarks/operator-cpu.json),
[training-cpu.json](benchmarks/training-cpu.json) and [transformers-cpu.json](benchmarks/transformers-cpu.json), which hold every repetition.
Each time is the median of the repetitions; rows take turns, so that a slow minute of the machine meets all of them.
Every rate stands beside the best this machine did in the same run: a large matrix product, or an update in place of as many bytes.
FLOP are those of the chunk form (163,840 forward and 393,216 backward a token and head at D = 128); bytes are those of the state, read and written.

## The operator on CPU
"""


CONFIG = "configs/demo.toml"
ROUNDS, OUR_STEPS, THEIR_STEPS = 5, 30, 10


def _write(path: pathlib.Path, results: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def _commit() -> str:
    describe = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


# Threads that wait by spinning make each other slow where another program runs beside them.
QUIET = {**os.environ, "OMP_WAIT_POLICY": "passive"}


def our_steps(folder: pathlib.Path, name: str) -> list[float]:
    """Seconds of each training step of the program, but for the first ones."""
    run = ["build/release/bin/comba", "train", "--config", CONFIG, "--data", folder / "data", "--out", folder / name]
    subprocess.run([*run, "--set", f"train.steps={OUR_STEPS}"], cwd=ROOT, env=QUIET, check=True, capture_output=True)
    lines = (folder / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["seconds"] for line in lines][3:]


def measure_training() -> None:
    """Rounds of steps, ours and then theirs, so that a slow minute of the machine meets both."""
    ours, theirs = [], []
    peer = [sys.executable, "benchmarks/peers/pytorch_train_step.py", "--config", CONFIG, "--steps", str(THEIR_STEPS)]
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder) / "data"
        pack = ["build/release/bin/comba", "data", "pack", "src", "--out", data]
        subprocess.run(pack, cwd=ROOT, check=True, capture_output=True)
        for number in range(ROUNDS):
            ours.append(our_steps(data.parent, f"run{number}"))
            told = subprocess.run(peer, cwd=ROOT, env=QUIET, check=True, capture_output=True, text=True).stdout
            theirs.append(json.loads(told))
    _write(TRAINING, {"command": "make bench", "commit": _commit(), "config": CONFIG, "comba": ours, "pytorch": theirs})


def measure_layers() -> str:
    """The layers of transformers, as they are and patched. Returns what the measuring found too slow, or nothing."""
    told = ROOT / "build/layers.json"
    peer = [sys.executable, "benchmarks/peers/transformers_layers.py", "--json", told]
    run = subprocess.run(peer, cwd=ROOT, env=QUIET, stderr=subprocess.PIPE, text=True)
    if run.returncode not in (0, 1) or not told.exists():
        sys.exit(f"bench.py: {run.stderr}")
    _write(LAYERS, {"command": "make bench", "commit": _commit(), **json.loads(told.read_text())})
    return run.stderr if run.returncode else ""


def measure() -> None:
    ours, peer = ROOT / "build/operator.json", ROOT / "build/transformers.json"
    subprocess.run(["build/release/bin/comba", "bench", "operator", "--device", "cpu", "--json", ours], cwd=ROOT, check=True)
    subprocess.run([sys.executable, "benchmarks/peers/transformers_delta_rule.py", "--json", peer], cwd=ROOT, check=True)
    results = {
        "command": "make bench",
        "commit": _commit(),
        "comba": json.loads(ours.read_text()),
        "transformers": json.loads(peer.read_text()),
    }
    _write(RESULTS, results)


def training_section(training: dict) -> list[str]:
    rounds = training["pytorch"]
    first = rounds[0]
    ours = statistics.median(seconds for steps in training["comba"] for seconds in steps)
    theirs = statistics.median(seconds for each in rounds for seconds in each["seconds"])
    ratios = [statistics.median(each["seconds"]) / statistics.median(steps) for steps, each in zip(training["comba"], rounds)]
    ceiling = 2 * 2048**3 / statistics.median(each["sgemm_seconds"] for each in rounds)
    rows = [
        "\n## A training step on CPU\n",
        f"The model of `{training['config']}` ({first['parameters']:,} parameters, {first['tokens']:,} tokens a step), by `comba train` "
        f"and by plain PyTorch modules around transformers' fallback ([pytorch_train_step.py](../benchmarks/peers/pytorch_train_step.py); "
        f"{first['program']}), fp32, {first['threads']} threads, in turns; commit {training['commit']}. A step is {first['flop'] / 1e9:.1f} GFLOP of matrix "
        f"products and operator; the ceiling is the rate of a matrix product of 2048, {ceiling / 1e9:.1f} GFLOP/s.\n",
        "| training step | ms | tokens/s | of the ceiling |",
        "|---|---:|---:|---:|",
    ]
    for name, seconds in (("comba train", ours), ("plain PyTorch", theirs)):
        share = first["flop"] / seconds / ceiling
        rows.append(f"| {name} | {seconds * 1e3:.1f} | {first['tokens'] / seconds:,.0f} | {share:.0%} |")
    rows.append(f"\nRatio of the medians: {theirs / ours:.2f}; of the single rounds: {', '.join(f'{r:.2f}' for r in ratios)}.")
    return rows


def layers_section(layers: dict) -> list[str]:
    context = layers["context"]
    ceiling = 2 * 2048**3 / statistics.median(context["sgemm_seconds"])
    lines = [
        "\n## Layers of transformers on CPU\n",
        "One Gated DeltaNet layer of each model, at its published size, as transformers computes it without other packages and after "
        "`comba.patch_transformers()` ([transformers_layers.py](../benchmarks/peers/transformers_layers.py); [what it does](transformers.md)), in turns in one "
        f"process; {context['program']}, fp32, {context['threads']} threads, commit {layers['commit']}. Prefill and training (forward and backward) of "
        f"{max(row['tokens'] for row in layers['rows']):,} tokens, decode of one. Without projections: the linear maps' results are given, the rest of the "
        f"layer runs, which is what patching is about; the whole layer has them, and they take the same time on both sides, at best "
        f"that of a matrix product ({ceiling / 1e9:.0f} GFLOP/s at 2048).\n",
        "| layer | | transformers, ms | patched, ms | ratio | whole layer: transformers, ms | patched, ms | ratio |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    found = {(row["model"], row["kind"], row["whole"]): row for row in layers["rows"]}
    for model, kind in dict.fromkeys((row["model"], row["kind"]) for row in layers["rows"]):
        cells = []
        for whole in (False, True):
            row = found[model, kind, whole]
            times = [statistics.median(row[side]) * 1e3 for side in ("transformers", "comba")]
            cells += [*(f"{ms:.2f}" for ms in times), f"{row['ratio']:.1f}"]
        lines.append(f"| {model} | {kind} | " + " | ".join(cells) + " |")
    return lines


def _cell_of_peer(peer: dict | None) -> str:
    """Time, ratio to ours and error of a peer; empty where it takes no part."""
    if peer is None:
        return ""
    if "us" not in peer:
        return "refused"
    error = f", {max(peer['errors'].values()):.4f}" if peer["errors"] else ""
    return f"{peer['us']:.1f}{'' if peer['method'] == 'graph' else ' (eager)'}, {peer['ratio']:.2f}{error}"


def _gpu_table(rows: list[dict], ours: dict) -> list[str]:
    """Rows of one operator; `ours` gives each further column of our own: its head and what it shows of a row."""
    names = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    heads = ["row", "us (p10 .. p90)", "GB/s (of copy)", *ours, "error", *names]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for row in rows:
        eager = "" if row["method"] == "graph" else " (eager)"
        cells = [row["name"], f"{row['us']:.1f}{eager} ({row['p10_us']:.1f} .. {row['p90_us']:.1f})"]
        cells += [f"{row['bytes_per_second'] / 1e9:,.0f} ({row['of_copy']:.0%})", *(show(row) for show in ours.values())]
        cells += [f"{max(row['errors'].values()):.4f}", *(_cell_of_peer(row["peers"].get(name)) for name in names)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def gpu_section(gpu: dict) -> list[str]:
    """What benchmarks/peers.py measured; rows that were not right have no time and are named."""
    context, ceilings = gpu["context"], gpu["ceilings"]
    timed = [row for row in gpu["rows"] if "us" in row]
    lines = [
        "\n## GPU\n",
        f"Made by `{context['command']}` ([peers.py](../benchmarks/peers.py)), which wrote [operator-gpu.json](benchmarks/operator-gpu.json): "
        f"{context['device']}, {context['program']}, {context['date']}, commit {context['commit'][:10]}. In the same run a copy moved "
        f"{ceilings['copy_bytes_per_second'] / 1e12:.2f} TB/s, read and written, and a bf16 product of 8192 did "
        f"{ceilings['gemm_flop_per_second'] / 1e12:.0f} TFLOP/s. Peers: "
        + "; ".join(f"{name} {told}" for name, told in gpu["peers"].items())
        + ".\n",
        "bf16, L2 norm included; rows are B x T, H/HV, K or K/V. The floor is the longest of the bytes of q, k, v and o at the copy rate, the FLOP of the "
        "chunk form at the rate of the product, and 0.35 us for each chunk of a sequence. An error is the ratio of root mean squares to the recurrence in "
        "float64, over fewer tokens. A peer's cell: us, its time over ours, its error; Gated DeltaNet's kernels and fla's Comba are given gates "
        "ready made, which ours compute; sdpa is causal softmax attention, another function, for scale.\n",
    ]
    forward = [row for row in timed if row["operator"] == "forward"]
    decode = [row for row in timed if row["operator"] == "decode_step"]
    training = [row for row in timed if row["operator"] == "forward_backward"]
    rate = {"TFLOP/s": lambda row: f"{row['flop_per_second'] / 1e12:.0f}", "x floor": lambda row: f"{row['times_floor']:.2f}"}
    if forward:
        lines += _gpu_table(forward, rate)
    if training:
        lines += ["\nForward and backward, of o with gradients of q, k, v and gates; the error is the largest of them.\n", *_gpu_table(training, rate)]
    if decode:
        lines += ["", *_gpu_table(decode, {"of a copy of the same bytes": lambda row: f"{row['of_copy_of_same_bytes']:.0%}"})]
    if wrong := [row["name"] for row in gpu["rows"] if "us" not in row]:
        lines.append(f"\nNot timed, because not right: {'; '.join(wrong)}.")
    cold = [f"{start['name']} {start['first_seconds'] * 1e3:.0f} ms" for start in gpu["cold_starts"] if "first_seconds" in start]
    if cold:
        lines.append(f"\nFirst calls, each in a new process: {'; '.join(cold)}.")
    return lines


def page(results: dict, training: dict, layers: dict, gpu: dict | None) -> str:
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
    lines += training_section(training)
    lines += layers_section(layers)
    lines += gpu_section(gpu) if gpu else []
    for file, section in MODELS_ON_GPUS.items():
        lines += section(json.loads(file.read_text())) if file.exists() else []
    return "\n".join(lines) + "\n"


def page_of_the_results() -> str:
    gpu = json.loads(GPU.read_text()) if GPU.exists() else None
    return page(*(json.loads(file.read_text()) for file in (RESULTS, TRAINING, LAYERS)), gpu)


def take(flag: str, files: list[pathlib.Path], source: str, kept: pathlib.Path, section) -> None:
    """Keeps what `source` wrote, of several files a list. Nothing changes when it is something else."""
    try:
        results = [json.loads(file.read_text()) for file in files]
        results = results if flag == "--gpu-training" else results[0]
        section(results)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        sys.exit(f"bench.py: {flag} needs results of {source}; got {', '.join(map(str, files))}: {type(error).__name__}: {error}")
    _write(kept, results)


def take_gpu_results(options) -> bool:
    """Whether new results were given."""
    training, train_peers, decode, scaling = MODELS_ON_GPUS
    given = [
        ("--gpu", options.gpu, "benchmarks/peers.py", GPU, gpu_section),
        ("--gpu-training", options.gpu_training, "comba bench train", training, gpu_pages.training_section),
        ("--train-peers", options.train_peers, "benchmarks/train_peers.py", train_peers, gpu_pages.train_peers_section),
        ("--gpu-decode", options.gpu_decode, "comba bench decode", decode, gpu_pages.decode_section),
        ("--scaling", options.scaling, "benchmarks/scaling.py", scaling, gpu_pages.scaling_section),
    ]
    given = [(flag, files if isinstance(files, list) else [files], *rest) for flag, files, *rest in given if files]
    for flag, files, source, kept, section in given:
        take(flag, files, source, kept, section)
    if options.scaling:
        gpu_pages.draw_scaling(json.loads(scaling.read_text()), scaling.with_suffix(".png"))
    return bool(given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="write docs/benchmarks.md from the results there are")
    parser.add_argument("--training", action="store_true", help="measure training steps only, and keep the other results")
    parser.add_argument("--layers", action="store_true", help="measure the layers of transformers only, and keep the other results")
    parser.add_argument("--gpu", type=pathlib.Path, metavar="FILE", help="take the results of benchmarks/peers.py in FILE, and measure nothing")
    parser.add_argument("--gpu-training", type=pathlib.Path, nargs="+", metavar="FILE", help="take those of comba bench train")
    parser.add_argument("--train-peers", type=pathlib.Path, metavar="FILE", help="take those of benchmarks/train_peers.py")
    parser.add_argument("--gpu-decode", type=pathlib.Path, metavar="FILE", help="take those of comba bench decode")
    parser.add_argument("--scaling", type=pathlib.Path, metavar="FILE", help="take those of benchmarks/scaling.py, and draw them")
    options = parser.parse_args()
    taken = take_gpu_results(options)
    slow = ""
    if not options.table and not taken:
        only = options.training or options.layers
        if not only:
            measure()
        if options.training or not only:
            measure_training()
        if options.layers or not only:
            slow = measure_layers()
    PAGE.write_text(page_of_the_results())
    print(f"wrote {PAGE.relative_to(ROOT)}")
    if slow:
        sys.exit(f"bench.py: {slow}")


if __name__ == "__main__":
    main()
