#!/usr/bin/env python3
"""The main job from end to end: packs text, trains a small Comba model, judges it beside compressors, lets it write.

Called by `make demo`. The text is one version of libstdc++'s headers or, where there are none, Python's standard
library; or any other text: make demo TEXT=path. The same text, SEED and THREADS give the same bits.
"""

import argparse
import itertools
import json
import os
import pathlib
import re
import shlex
import signal
import struct
import subprocess
import sys
import sysconfig
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = "build/release/bin/comba"
CONFIG = "configs/demo.toml"

stop_signal = 0  # of the SIGINT or SIGTERM that came, if one came


class Stopped(Exception):
    """A step ended otherwise than well: with this exit code."""

    def __init__(self, code: int):
        self.code = code


def on_signal(number: int, _frame) -> None:
    """Lets the step at hand end in its own way: a terminal's Ctrl-C has reached it too."""
    global stop_signal
    stop_signal = number


def run(*command: object, capture: bool = False) -> str:
    """Runs a step of the demo in the root of the tree; returns what it printed, when that is captured."""
    words = [str(word) for word in command]
    child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE if capture else None, text=True)
    output, _ = child.communicate()
    if stop_signal:
        raise Stopped(128 + stop_signal)
    if child.returncode != 0:
        print(f"demo: failed: {shlex.join(words)}", file=sys.stderr)
        raise Stopped(1)
    return output or ""


def announce(title: str) -> None:
    print(f"\n== {title}", flush=True)


def version_number(folder: pathlib.Path) -> list[int]:
    return [int(part) for part in folder.name.split(".")]


def find_text() -> tuple[str, list[object], str | None]:
    """A text most machines have: (what it is, arguments of `data pack`, a prompt that suits it)."""
    headers = [p for p in pathlib.Path("/usr/include/c++").glob("[0-9]*") if re.fullmatch(r"[0-9.]+", p.name) and p.is_dir()]
    if headers:
        newest = max(headers, key=version_number)
        return f"the headers of libstdc++ {newest.name}", [newest], "template<typename _Tp>\n"
    library = sysconfig.get_paths()["stdlib"]
    return "Python's standard library", [library, "--include", "*.py", "--exclude", "site-packages/*"], "def "


def pack(arguments: list[object], data: pathlib.Path) -> None:
    run(PROGRAM, "data", "pack", *arguments, "--out", data)
    index = json.loads((ROOT / data / "index.json").read_text())
    if index["splits"]["heldout"]["bytes"] == 0:
        print("so few files: the end of each is held out in place of whole files", flush=True)
        run(PROGRAM, "data", "pack", *arguments, "--out", data, "--overwrite", "--heldout", "tail")


def heldout_beginning(data: pathlib.Path) -> str:
    """The first words of the first held-out document, for a model to continue."""
    with open(ROOT / data / "heldout-00000.tokens", "rb") as tokens:
        ids = [id for (id,) in struct.iter_unpack("<H", tokens.read(2 * 65))][1:]  # behind its BOS
    document = itertools.takewhile(lambda id: 0 < id < 256, ids)  # up to the next BOS; an argument cannot hold a NUL
    text = bytes(document).decode("utf-8", errors="ignore")
    return text if " " not in text else text.rpartition(" ")[0]


def evaluate(model: pathlib.Path, data: pathlib.Path, threads: list[object], *flags: str) -> float:
    printed = run(PROGRAM, "eval", "--model", model, "--data", data, "--json", *threads, *flags, capture=True)
    return json.loads(printed)["bits_per_byte"]


def print_table(bits: dict[str, float]) -> None:
    width = max(map(len, bits))
    print(f"{'':{width}}  bits/byte on held-out text")
    for name, value in bits.items():
        print(f"{name:{width}}  {value:.4f}")


def free_directory() -> pathlib.Path:
    """runs/demo, or the first of runs/demo-2, runs/demo-3, ... that is not there yet."""
    names = ["demo", *(f"demo-{i}" for i in range(2, 1000))]
    return next(path for name in names if not (ROOT / (path := pathlib.Path("runs", name))).exists())


def shown(path: pathlib.Path) -> str:
    return os.path.relpath(ROOT / path)


def demo(options: argparse.Namespace) -> None:
    start = time.monotonic()
    out = options.out or free_directory()
    data, model, picture, sample = out / "data", out / "model", out / "loss.svg", out / "sample.txt"
    threads = ["--threads", options.threads] if options.threads else []

    if options.text:
        what, arguments, prompt = str(options.text), [options.text.resolve()], None
    else:
        what, arguments, prompt = find_text()
    announce(f"1/5 pack {what}")
    pack(arguments, data)
    prompt = heldout_beginning(data) if prompt is None else prompt

    announce("2/5 train a small Comba model on it (Ctrl-C stops with a checkpoint)")
    settings = [f"train.seed={options.seed}"] if options.seed is not None else []
    settings += [f"train.threads={options.threads}"] if options.threads else []
    sets = [word for setting in settings + options.set for word in ("--set", setting)]
    train = [PROGRAM, "train", "--config", CONFIG, "--data", data, "--out", model, *sets]
    try:
        run(*train)
    except Stopped as stopped:
        if stopped.code > 128:
            print(f"\nto go on with this run: {shlex.join([str(word) for word in train])} --resume", file=sys.stderr)
        raise

    announce("3/5 read the held-out text: the model as it began, the trained model, general compressors")
    untrained = evaluate(model, data, threads, "--untrained")
    trained = evaluate(model, data, threads)
    compressors = json.loads(run(sys.executable, "scripts/compression_baseline.py", data, capture=True))
    bits = {
        "Comba, untrained": untrained,
        "xz -9e, file by file": compressors["xz"],
        "zstd -19, file by file": compressors["zstd"],
        "Comba, trained": trained,
        "xz -9e, given the training text first": compressors["xz_primed"],
    }
    (ROOT / out / "results.json").write_text(json.dumps(bits, indent=2) + "\n")

    announce("4/5 let it write")
    generate = [PROGRAM, "generate", "--model", model, "--prompt", prompt]
    text = run(*generate, "--temperature", "0.7", "--max-tokens", "400", "--seed", options.seed or 0, *threads, capture=True)
    (ROOT / sample).write_text(text)
    print(text)

    announce("5/5 draw the run")
    levels = [f"--level={name}={compressors[key]}" for name, key in (("xz -9e", "xz"), ("zstd -19", "zstd"))]
    run(sys.executable, "-m", "comba.plot", model, "--out", picture, *levels, capture=True)

    checkpoint = shown(max(pathlib.Path(ROOT, model).glob("checkpoint-*")))
    announce(f"done in {(time.monotonic() - start) / 60:.1f} minutes")
    print_table(bits)
    print(f"""
made:
  {shown(data)}            the packed text
  {shown(model)}           the run: metrics.jsonl and the trained model
  {shown(picture)}        its loss, learning rate and throughput
  {shown(sample)}      what it wrote
  {shown(out / "results.json")}    the table above
try next:
  {PROGRAM} generate --model {model} --prompt {shlex.quote(prompt)} --temperature 0.5
  {PROGRAM} inspect model {checkpoint}
  {PROGRAM} train --config {CONFIG} --data {data} --out {out}/longer --set train.steps=10000
  make demo TEXT=path/to/your/own/text""")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=pathlib.Path, help="file or directory to learn from")
    parser.add_argument("--out", type=pathlib.Path, help="directory for everything that is made (default: runs/demo)")
    parser.add_argument("--seed", type=int, help="of the weights and the order of the data")
    parser.add_argument("--threads", type=int, help="default: as many as LibTorch takes by itself")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for comba train")
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    try:
        demo(parser.parse_args())
    except Stopped as stopped:
        return stopped.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
