#!/usr/bin/env python3
"""Makes control loops fail on purpose, in small models on text of this machine, and shows what --diagnostics tells of it.

Called by `make diagnostics`. Writes control-loop.json (settings, seeds, device, commit, results and what the diagnoses
of the first seed said) and the pictures drawn from it to docs/science/, and the table of docs/science.md. The runs stay
in build/diagnostics. The same text gives the same bits.
"""

import argparse
import concurrent.futures
import hashlib
import itertools
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import demo

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))

from comba import _plot_loops, _plot_runs  # noqa: E402

PROGRAM = ROOT / "build/release/bin/comba"
PAGE = ROOT / "docs/science.md"
MARKS = ("<!-- control-loop.json begins -->\n", "<!-- control-loop.json ends -->\n")
SEEDS = (1, 2)
WINDOW = 256  # tokens, of training
NO_DECAY = -30.0  # of A_log: alpha is 1 in fp32
BYTES = {"large": 1_500_000, "small": 60_000, "held out": 20_000}

# configs/demo.toml made smaller.
BASE = {
    "model.hidden_size": 64, "model.num_hidden_layers": 2, "model.num_heads": 2, "model.num_v_heads": 2, "model.intermediate_size": 192,
    "model.correction_factor": 0.02, "train.batch_size": 4, "train.context_length": WINDOW, "train.warmup_steps": 40, "train.threads": 1,
}  # fmt: skip
LARGE = {"text": "large", "steps": 500}
SMALL = {"text": "small", "steps": 1000}
RUNS = {
    "Comba, d = 0.02": {**LARGE, "settings": {}},
    "Comba, d = 1": {**LARGE, "settings": {"model.correction_factor": 1.0}},
    "Comba, d = 30": {**LARGE, "settings": {"model.correction_factor": 30.0}},
    "Comba, α = 1": {**LARGE, "settings": {}, "no_decay": True},
    "Gated DeltaNet": {**LARGE, "settings": {"model.model_type": "gated_deltanet", "model.expand_v": 1.0}},
    "SPLR, little text": {**SMALL, "settings": {}},
    "IPLR, little text": {**SMALL, "settings": {"model.comba_rule": "iplr"}},
}
PICTURES = {
    "correction": (["Comba, d = 0.02", "Comba, d = 1", "Comba, d = 30"], ["query_ratio", "query_cosine", "correction"]),
    "forgetting": (["Comba, d = 0.02", "Comba, α = 1", "Gated DeltaNet"], ["decay", "memory", "state_norm"]),
    "overfitting": (["SPLR, little text", "IPLR, little text"], ["key_eigenvalue", "negative_share", "key_coherence"]),
    "layers": (["Comba, d = 0.02"], ["decay", "key_eigenvalue", "memory", "decay_memory", "state_norm", "key_coherence", "negative_share"]),
}
NO_KEY = {"gated_deltanet": ["model.correction_factor", "model.num_v_heads"]}  # of BASE, by model_type


def comba(*words: object) -> str:
    quiet = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    result = subprocess.run([str(PROGRAM), *map(str, words)], capture_output=True, text=True, env=quiet)
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip().splitlines()[-1])
    return result.stdout


def gather(folder: pathlib.Path, suffixes: tuple[str, ...] | None) -> bytes:
    """Files of a folder one behind the other, in an order that has nothing to do with their names."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink() and (suffixes is None or p.suffix in suffixes)]
    files.sort(key=lambda path: hashlib.md5(path.relative_to(folder).as_posix().encode()).digest())
    texts = []
    for path in files:
        text = path.read_bytes()
        if b"\0" not in text:
            texts.append(text)
    return b"".join(texts)


def document_name(held_out: bool) -> str:
    """A name that `comba data pack` takes for a document held out, or for one to learn from."""
    names = (f"{i}.txt" for i in itertools.count())
    return next(name for name in names if (int(hashlib.md5(name.encode()).hexdigest(), 16) % 20 == 0) == held_out)


def pack(text: bytes, work: pathlib.Path) -> dict:
    """The data sets `large` and `small`, with one text held out of both; what they are made of."""
    held_out, rest = text[: min(BYTES["held out"], len(text) // 3)], text[min(BYTES["held out"], len(text) // 3) :]
    for name in ("large", "small"):
        folder = work / f"{name}-text"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / document_name(True)).write_bytes(held_out)
        (folder / document_name(False)).write_bytes(rest[: BYTES[name]])
        comba("data", "pack", folder, "--out", work / name, "--overwrite")
    return {"bytes": {name: min(size, len(rest)) for name, size in BYTES.items()} | {"held out": len(held_out)}, "md5": hashlib.md5(text).hexdigest()}


def settings_of(run: dict, seed: int, steps: int) -> list[str]:
    without = NO_KEY.get(run["settings"].get("model.model_type", ""), [])
    settings = {key: value for key, value in BASE.items() if key not in without} | run["settings"]
    settings |= {"train.steps": steps, "train.seed": seed, "train.evaluation_interval": max(1, steps // 5)}
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def model_without_decay(words: list[str], data: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """The weights that such a run begins with, but for A_log."""
    from safetensors.numpy import load_file, save_file

    comba("train", *words, "--data", data, "--out", folder, "--set", "train.steps=1", "--set", "train.learning_rate=1e-30")
    file = folder / "checkpoint-000001/model.safetensors"
    weights = load_file(file)
    for name, value in weights.items():
        if name.endswith("A_log"):
            value[:] = NO_DECAY
    save_file(weights, file, metadata={"format": "pt"})
    return file.parent


def train(name: str, seed: int, work: pathlib.Path, divisor: int) -> dict:
    run = RUNS[name]
    steps = max(2, run["steps"] // divisor)
    data, out = work / run["text"], work / f"{name}, seed {seed}"
    shutil.rmtree(out, ignore_errors=True)
    words = ["--config", str(ROOT / "configs/demo.toml"), *settings_of(run, seed, steps)]
    if run.get("no_decay"):
        words += ["--init", str(model_without_decay(words, data, out / "init"))]
    comba("train", *words, "--data", data, "--out", out / "run", "--diagnostics", max(1, steps // 20))
    bits = [json.loads(comba("eval", "--model", out / "run", "--data", data, "--json", "--threads", 1, *window))["bits_per_byte"]
            for window in ([], ["--window", str(WINDOW)])]  # fmt: skip
    records = _plot_runs.records(out / "run/metrics.jsonl")
    losses = [record["loss"] / math.log(2) for record in records if "loss" in record]
    best = min(record["heldout_bits_per_byte"] for record in records if "heldout_bits_per_byte" in record)
    print(f"{name}, seed {seed}: {bits[0]:.3f} bits/byte", flush=True)
    return {
        "name": name, "seed": seed, "text": run["text"], "steps": steps, "settings": run["settings"], "A_log": NO_DECAY if run.get("no_decay") else None,
        "training_bits": statistics.fmean(losses[-max(1, steps // 20) :]), "heldout_bits": bits[0], "heldout_bits_in_windows": bits[1], "best_heldout_bits": best,
        "records": shortened(records, max(1, steps // 100)),
    }  # fmt: skip


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return {key: rounded(item) for key, item in value.items()} if isinstance(value, dict) else value


def shortened(records: list[dict], every: int) -> list[dict]:
    """Losses as means of `every` steps; diagnoses and evaluations as they are; four digits of each number."""
    found, losses = [], []
    for record in records:
        if "loss" not in record:
            found.append(record)
            continue
        losses.append(record["loss"])
        if len(losses) == every:
            found.append({"step": record["step"], "loss": statistics.fmean(losses)})
            losses = []
    return rounded(found)


def at_the_end(result: dict, key: str, quantile: int | None = None) -> float:
    """A quantity after the last step, mean of the layers; NaN where there is none."""
    loops = [record for record in result["records"] if "control_loops" in record][-1]["control_loops"]
    values = [loop[key] if quantile is None else loop[key][quantile] for loop in loops if key in loop]
    return statistics.fmean(values) if values else math.nan


COLUMNS = {
    "training": lambda r: r["training_bits"],
    "held out": lambda r: r["heldout_bits"],
    "in windows": lambda r: r["heldout_bits_in_windows"],
    "\\|q − d k\\| / \\|q\\|": lambda r: at_the_end(r, "query_ratio", 3),
    "cosine": lambda r: at_the_end(r, "query_cosine"),
    "α": lambda r: at_the_end(r, "decay", 3),
    "eigenvalue": lambda r: at_the_end(r, "key_eigenvalue", 3),
    "negative": lambda r: at_the_end(r, "negative_share"),
    "memory": lambda r: at_the_end(r, "memory", 3),
    "state": lambda r: at_the_end(r, "state_norm"),
    "coherence": lambda r: at_the_end(r, "key_coherence"),
}


def cell(values: list[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    return " / ".join(f"{value:.3g}" if abs(value) >= 1000 or abs(value) < 1e-3 else f"{value:.3f}"[: 5 + (value < 0)] for value in known)


def table(results: list[dict]) -> str:
    lines = ["| run | " + " | ".join(COLUMNS) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    for name in dict.fromkeys(result["name"] for result in results):
        same = [result for result in results if result["name"] == name]
        lines.append(f"| {name} | " + " | ".join(cell([column(r) for r in same]) for column in COLUMNS.values()) + " |")
    return "\n".join(lines) + "\n"


def device() -> str:
    names = [line.partition(":")[2].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else "a CPU"


def write_json(results: dict, file: pathlib.Path) -> None:
    """One record a line."""
    text = json.dumps(results, ensure_ascii=False)
    for mark in ('{"name": ', '{"step": '):
        text = text.replace(mark, "\n" + mark)
    file.write_text(text + "\n", encoding="utf-8")


def draw(results: dict, out: pathlib.Path) -> None:
    for picture, (names, keys) in PICTURES.items():
        first = {run["name"]: run for run in results["runs"] if run["seed"] == SEEDS[0]}
        loops = [_plot_loops.Loops(name, first[name]["records"]) for name in names]
        _plot_loops.draw(loops, out / f"control-loop-{picture}.png", keys)


def write_page(results: dict, page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    if all(mark in text for mark in MARKS):
        before, _, rest = text.partition(MARKS[0])
        page.write_text(before + MARKS[0] + table(results["runs"]) + MARKS[1] + rest.partition(MARKS[1])[2], encoding="utf-8")


def measure(options: argparse.Namespace) -> dict:
    if options.text:
        what, folder, suffixes = str(options.text), options.text, None
    else:
        what, arguments, _ = demo.find_text()
        folder, suffixes = pathlib.Path(arguments[0]), (".py",) if len(arguments) > 1 else None
    start = time.monotonic()
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    texts = pack(gather(folder, suffixes), options.work)
    jobs = [(name, seed) for name in RUNS for seed in SEEDS]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = list(pool.map(lambda job: train(*job, options.work, options.divisor), jobs))
    for run in runs:
        if run["seed"] != SEEDS[0]:  # the end is enough
            run["records"] = [record for record in run["records"] if "control_loops" in record][-1:]
    return {"command": "make diagnostics", "commit": commit, "device": device(), "threads": 1, "seconds": round(time.monotonic() - start),
            "text": {"what": what, **texts}, "config": "configs/demo.toml", "settings": BASE, "runs": runs}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=PAGE.parent / "science", help="where results and pictures go")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/diagnostics", help="where the runs are made")
    parser.add_argument("--text", type=pathlib.Path, help="folder to learn from")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time, of a thread each")
    parser.add_argument("--divisor", type=int, default=1, help="make runs so many times shorter")
    parser.add_argument("--draw", action="store_true", help="only draw and tabulate again what --out holds")
    options = parser.parse_args()
    file = options.out / "control-loop.json"
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        if not options.draw:
            write_json(measure(options), file)
        results = json.loads(file.read_text(encoding="utf-8"))
        draw(results, options.out)
    except (RuntimeError, OSError, ValueError) as error:
        print(f"diagnostics: {error}", file=sys.stderr)
        return 1
    write_page(results, options.out.parent / PAGE.name)
    print(table(results["runs"]))
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
