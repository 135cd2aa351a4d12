"""Trains on one GPU and on several of one host: tokens a second, memory and exposed communication of plain data parallel
training and of ZeRO stages 1 and 2; whether several processes train as one does, repeat their bits, go on from each
other's checkpoints, and what becomes of a run of which a process is killed.

    python benchmarks/scaling.py --data texts.data --bytes bytes.data --json scaling.json

--data is packed for the model that is timed (configs/comba-340m.toml with --batch-size sequences a GPU), --bytes for the
small one (configs/comba-tiny.json) that the other tests train. `scripts/bench.py --scaling FILE` puts the results into
docs/benchmarks.md. With --device cpu, processes of one machine over Gloo. Needs no package."""

import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
STAGES = {0: "plain", 1: "ZeRO-1", 2: "ZeRO-2"}
UNTIMED_STEPS = 10  # libraries choose kernels, graphs are recorded, a profile is taken


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="data set for --config")
    parser.add_argument("--bytes", type=pathlib.Path, required=True, help="data set of bytes, for the small model")
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/bin/comba")
    parser.add_argument("--config", type=pathlib.Path, default=ROOT / "configs/comba-340m.toml", help="run file of the model that is timed")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the timed runs")
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--processes", type=int, default=2, help="beside one (default 2)")
    parser.add_argument("--batch-size", type=int, default=16, help="sequences a process (default 16)")
    parser.add_argument("--steps", type=int, default=20, help="timed steps (default 20)")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("scaling-runs"), help="for the runs; emptied")
    parser.add_argument("--json", type=pathlib.Path, required=True, metavar="FILE")
    parser.add_argument("--commit", default="", help="what the results are to say")
    options = parser.parse_args(words)
    if options.processes < 2 or options.steps < 1 or options.batch_size < 1:
        parser.error("--processes must be at least 2, --steps and --batch-size at least 1")
    for path in (options.data, options.bytes, options.program, options.config):
        if not path.exists():
            parser.error(f"there is no {path}")
    return options


class Processes:
    """`comba train` in as many processes as asked for, as a launcher would start them."""

    def __init__(self, options, size: int, run: pathlib.Path, *words: str):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.run, self.log = run, run.with_suffix(".log")
        command = [options.program, "train", "--out", run, "--device", options.device, *words]
        told = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.children = []
        with self.log.open("w") as log:
            for rank in range(size):
                named = {**told, "RANK": str(rank), "LOCAL_RANK": str(rank)} if size > 1 else {}
                self.children.append(subprocess.Popen(command, cwd=ROOT, env={**os.environ, **named}, stdout=log, stderr=log))

    def metrics(self) -> list[dict]:
        file = self.run / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}") and '"loss"' in line]

    def wait_for(self, ready, seconds: float = 120) -> None:
        """Returns when ready(); ends with what the processes have written when they end before, or take too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            ended = any(child.poll() is not None for child in self.children)
            if (ended and not ready()) or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.run.name}: {self.log.read_text()[-500:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        for child in self.children:
            child.kill()
        for child in self.children:
            child.wait()

    def end(self) -> list[int]:
        return [child.wait(timeout=120) for child in self.children]


def union_length(intervals: list[tuple[float, float]]) -> float:
    total, end = 0.0, float("-inf")
    for first, last in sorted(intervals):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


def merged(intervals: list[tuple[float, float]], gap: float) -> list[list[float]]:
    """Intervals in order, those closer than `gap` as one."""
    result: list[list[float]] = []
    for first, last in sorted(intervals):
        if result and first <= result[-1][1] + gap:
            result[-1][1] = max(result[-1][1], last)
        else:
            result.append([first, last])
    return result


def timeline(trace: dict) -> dict:
    """Of two steps: how long the GPU computes, exchanges, and only exchanges; and when, in ms."""
    kernels = [event for event in trace["traceEvents"] if event.get("cat") == "kernel"]
    start = min(event["ts"] for event in kernels)
    spans = {"compute": [], "exchange": []}
    for event in kernels:
        kind = "exchange" if "nccl" in event["name"].lower() else "compute"
        spans[kind].append(((event["ts"] - start) / 1e3, (event["ts"] - start + event["dur"]) / 1e3))
    busy = {kind: union_length(intervals) for kind, intervals in spans.items()}
    either = union_length(spans["compute"] + spans["exchange"])
    return {"steps": 2, "ms": max(last for intervals in spans.values() for _, last in intervals), "compute_ms": busy["compute"],
            "exchange_ms": busy["exchange"], "only_exchange_ms": either - busy["compute"],
            "spans": {kind: [[round(x, 3) for x in span] for span in merged(intervals, 0.05)] for kind, intervals in spans.items()}}


def time_training(options, size: int, stage: int) -> dict:
    """Tokens a second over the timed steps. The run is killed then: it would write a checkpoint."""
    last = UNTIMED_STEPS + options.steps
    settings = [f"train.steps={last + 1000}", "train.checkpoint_interval=100000", "train.evaluation_interval=100000",
                f"train.batch_size={options.batch_size * size}", f"train.micro_batch_size={options.batch_size}",
                "train.recompute_blocks=false", f"train.zero_stage={stage}", *options.set]
    words = ["--config", str(options.config), "--data", str(options.data)]
    profile = ["--profile", "2"] if size > 1 and options.device == "cuda" else []
    run = options.folder / f"{size}-{stage}"
    processes = Processes(options, size, run, *words, *(word for setting in settings for word in ("--set", setting)), *profile)
    processes.wait_for(lambda: len(processes.metrics()) >= last + 1)
    processes.kill()
    lines = processes.metrics()
    timed = lines[UNTIMED_STEPS:last]
    seconds = sum(line["seconds"] for line in timed) / options.steps
    tokens = (timed[-1]["tokens"] - lines[UNTIMED_STEPS - 1]["tokens"]) / options.steps
    memory = re.findall(r"([\d.]+) GiB", processes.log.read_text())
    result = {"processes": size, "stage": STAGES[stage] if size > 1 else "", "step_seconds": seconds, "tokens_per_second": tokens / seconds,
              "peak_memory_gib": float(memory[-1]) if memory else None, "loss": timed[-1]["loss"]}
    if profile and (run / "trace.json").exists():
        result["timeline"] = timeline(json.loads((run / "trace.json").read_text()))
    shutil.rmtree(run)
    return result


SMALL = ["model.file=configs/comba-tiny.json", "train.steps=20", "train.checkpoint_interval=10", "train.context_length=256",
         "train.batch_size=16", "train.learning_rate=1e-3", "train.warmup_steps=5", "train.keep_checkpoints=10"]


def train_small(options, size: int, name: str, *words: str) -> Processes:
    processes = small(options, size, name, *words)
    if any(codes := processes.end()):
        raise RuntimeError(f"{name}: exit codes {codes}: {processes.log.read_text()[-500:]}")
    return processes


def small(options, size: int, name: str, *words: str) -> Processes:
    settings = [*SMALL, *([] if options.device == "cpu" else ["train.dtype=bf16"])]
    deterministic = ["--deterministic"] if options.device == "cuda" else []
    given = [word for setting in settings for word in ("--set", setting)]
    return Processes(options, size, options.folder / name, "--data", str(options.bytes), *given, *words, *deterministic)


def weights_of(run: Processes, step: int = 20) -> bytes:
    return (run.run / f"checkpoint-{step:06}" / "model.safetensors").read_bytes()


def losses_of(run: Processes) -> list[float]:
    return [line["loss"] for line in run.metrics()]


def greatest_difference(a: Processes, b: Processes) -> float:
    return max(abs(x - y) for x, y in zip(losses_of(a), losses_of(b), strict=True))


def resumed_from_half(options, run: Processes, size: int, name: str) -> Processes:
    """The same run, its second half by another number of processes."""
    shutil.copytree(run.run, options.folder / name)
    shutil.rmtree(options.folder / name / "checkpoint-000020")
    return train_small(options, size, name, "--resume")


def equality(options) -> dict:
    several = options.processes
    one, a, b = train_small(options, 1, "one"), train_small(options, several, "a"), train_small(options, several, "b")
    onwards = resumed_from_half(options, a, 1, "from-several"), resumed_from_half(options, one, several, "from-one")
    again = resumed_from_half(options, a, several, "again")
    return {"losses": losses_of(one), "greatest_difference_of_loss": greatest_difference(one, a),
            "repeats_its_bits": weights_of(a) == weights_of(b), "resumed_has_the_same_bits": weights_of(a) == weights_of(again),
            "difference_resumed_on_one": greatest_difference(one, onwards[0]),
            "difference_resumed_on_several": greatest_difference(one, onwards[1])}


def killed(options) -> dict:
    """One process of a run is killed in the middle of it."""
    settings = ["--set", "train.steps=100000", "--set", "train.checkpoint_interval=20"]
    processes = small(options, options.processes, "killed", *settings)
    processes.wait_for(lambda: len(processes.metrics()) >= 50)
    start = time.monotonic()
    processes.children[-1].send_signal(signal.SIGKILL)
    codes = processes.end()[:-1]
    seconds = time.monotonic() - start
    errors = [line for line in processes.log.read_text().splitlines() if line.startswith("comba: error")]
    newest = max(int(path.name.split("-")[1]) for path in processes.run.glob("checkpoint-*"))
    resumed = small(options, options.processes, "killed", *settings, "--resume")
    resumed.wait_for(lambda: resumed.metrics()[-1]["step"] > newest + 20)
    resumed.kill()
    return {"seconds": seconds, "exit_codes": codes, "messages": errors, "newest_checkpoint": newest, "resumed": True}


def context(options) -> dict:
    words = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    gpus = subprocess.run(words, capture_output=True, text=True).stdout.splitlines() if options.device == "cuda" else []
    return {"device": f"{options.processes} x {gpus[0]}" if gpus else f"{os.cpu_count()} processors", "config": options.config.name,
            "sequences_a_process": options.batch_size, "set": options.set, "steps": options.steps, "commit": options.commit,
            "date": datetime.date.today().isoformat()}


def main() -> None:
    options = parse()
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True)
    results = {"context": context(options), "rows": []}

    def keep() -> None:
        written = options.json.with_name(options.json.name + ".part")
        written.write_text(json.dumps(results) + "\n")
        written.replace(options.json)

    failures = []
    for size, stage in [(1, 1), *((options.processes, stage) for stage in STAGES)]:
        try:
            row = time_training(options, size, stage)
        except RuntimeError as error:
            failures.append(str(error))
            print(f"scaling.py: {error}", file=sys.stderr, flush=True)
            continue
        alone = results["rows"][0] if results["rows"] else row
        row["of_one"] = row["tokens_per_second"] / alone["tokens_per_second"]
        row["exposed"] = 1 - alone["step_seconds"] / row["step_seconds"]
        results["rows"].append(row)
        print({name: value for name, value in row.items() if name != "timeline"}, flush=True)
        keep()
    for name, test in (("equality", equality), ("killed", killed)):
        try:
            results[name] = test(options)
        except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            failures.append(f"{name}: {error}")
            continue
        print(name, results[name], flush=True)
        keep()
    if failures:
        sys.exit("scaling.py: " + "; ".join(failures))


if __name__ == "__main__":
    main()
