"""The examples run as they stand."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(name: str, *words: str) -> str:
    """What it prints."""
    command = [sys.executable, ROOT / "examples" / name, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_patch_qwen3_next():
    pytest.importorskip("transformers", reason="transformers is not installed")
    told = run("patch_qwen3_next.py", "--hidden", "64", "--tokens", "70")
    assert "Qwen3NextRMSNormGated.forward" in told and told.endswith("the same text\n")
    losses = [line.split("loss ")[1].split(",")[0] for line in told.splitlines() if "loss " in line]
    assert len(losses) == 2 and abs(float(losses[0]) - float(losses[1])) < 2e-4
