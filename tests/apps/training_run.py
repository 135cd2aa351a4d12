"""A training run of seconds, and how to look at it."""

import json
import subprocess
import time

RUN_FILE = """
[model]
hidden_size = 32
num_hidden_layers = 1
num_heads = 2
num_v_heads = 2
head_dim = 16
intermediate_size = 48
vocab_size = 264
initializer_range = 0.02

[train]
steps = 60
batch_size = 2
context_length = 32
learning_rate = 1e-2
warmup_steps = 5
checkpoint_interval = 7
threads = 1
"""
TRAIN = ("train", "--config", "run.toml", "--data", "data", "--out")
LAST = "checkpoint-000060"


def weights(program, run: str, checkpoint: str = LAST) -> bytes:
    return (program.folder / run / checkpoint / "model.safetensors").read_bytes()


def steps_logged(program, run: str) -> list[int]:
    lines = (program.folder / run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def start_run(program, run: str, *arguments) -> subprocess.Popen:
    """A run that has made a few steps, or, when it goes on, a few more."""
    metrics = program.folder / run / "metrics.jsonl"

    def num_lines() -> int:
        return metrics.read_text().count("\n") if metrics.exists() else 0

    enough = num_lines() + 10
    command = [program.path, *TRAIN, run, *arguments]
    process = subprocess.Popen(command, cwd=program.folder, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while num_lines() < enough:
        assert time.monotonic() < deadline and process.poll() is None, "the run made no steps"
        time.sleep(0.001)
    return process
