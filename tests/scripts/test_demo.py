"""The demo from end to end on a small text: what it makes, that it repeats itself, and that Ctrl-C ends it well."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from rules import tree

SMALL = ["--set", "train.steps=3", "--set", "train.batch_size=1", "--set", "train.context_length=64"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Four files, so few that none is held out and the demo must fall back to the ends of them."""
    folder = tmp_path_factory.mktemp("text")
    for name in ("one", "two", "three", "four"):
        (folder / f"{name}.txt").write_text("".join(f"{name}: line {i} of a small text\n" for i in range(40)))
    return folder


def command(text, out, *more: str) -> list:
    script = tree.ROOT / "scripts" / "demo.py"
    return [sys.executable, script, "--text", text, "--out", out, "--seed", "5", "--threads", "1", *more]


def results(out) -> tuple:
    (checkpoint,) = (out / "model").glob("checkpoint-*")
    return (out / "results.json").read_text(), (out / "sample.txt").read_text(), (checkpoint / "model.safetensors").read_bytes()


def test_makes_what_it_says_and_the_same_again(comba_program, text, tmp_path):
    outs = [tmp_path / "a", tmp_path / "b"]
    for out in outs:
        demo = subprocess.run(command(text, out, *SMALL), capture_output=True, text=True)
        assert demo.returncode == 0, demo.stdout + demo.stderr
        for name in ("data", "model", "loss.svg", "sample.txt", "results.json"):
            assert (out / name).exists()
            assert name in demo.stdout
    assert results(outs[0]) == results(outs[1])
    bits = json.loads(results(outs[0])[0])
    assert bits["Comba, untrained"] == pytest.approx(8.1, abs=0.4)  # 257 tokens, about equally likely
    assert bits["Comba, trained"] != bits["Comba, untrained"]
    assert len(bits) == 5


def test_ctrl_c_ends_it_with_130_and_a_checkpoint(comba_program, text, tmp_path):
    endless = ["--set", "train.steps=1000000", *SMALL[2:]]
    demo = subprocess.Popen(command(text, tmp_path, *endless), stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "model" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(demo.pid, signal.SIGINT)
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, errors
    assert "--resume" in errors and "Traceback" not in errors
    assert list((tmp_path / "model").glob("checkpoint-*"))


def test_a_missing_text_is_a_failure(comba_program, tmp_path):
    demo = subprocess.run(command(tmp_path / "nowhere", tmp_path / "out"), capture_output=True, text=True)
    assert demo.returncode == 1
    assert "nowhere" in demo.stderr and "Traceback" not in demo.stderr
