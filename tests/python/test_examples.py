"""The examples and the code of the documents run, and do what they say."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from apps.program import Program
from apps.small_run import train_small_run
from rules import readme, tree

EXAMPLES = tree.ROOT / "examples"


@pytest.fixture(scope="module")
def comba(comba_program, tmp_path_factory) -> Program:
    """The program in a folder with a trained model."""
    program = Program(comba_program, tmp_path_factory.mktemp("examples"))
    train_small_run(program)
    return program


def python(folder: pathlib.Path, *arguments) -> str:
    result = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_train(comba):
    (comba.folder / "text.txt").write_text("A state that is corrected before it is written forgets less. " * 30)
    printed = python(comba.folder, EXAMPLES / "train.py", "text.txt", "trained", 8)
    first, last = (float(bits) for bits in re.findall(r"([\d.]+) bits per byte", printed))
    assert last < 0.9 * first
    assert "A state that is corrected before it is w" in printed
    assert "398,224 parameters" in comba.succeed("inspect", "model", comba.folder / "trained")


def test_exchange_checkpoint(comba):
    printed = python(comba.folder, EXAMPLES / "exchange_checkpoint.py", "run", "half")
    assert printed.startswith("The text of ")

    def bits_per_byte(model: str) -> float:
        return json.loads(comba.succeed("eval", "--model", model, "--data", "data", "--json"))["bits_per_byte"]

    assert bits_per_byte("half") == pytest.approx(bits_per_byte("run"), rel=0.02)
    written = comba.folder / "half" / "model.safetensors"
    assert written.stat().st_size < 0.6 * (comba.folder / "run" / "checkpoint-000060" / "model.safetensors").stat().st_size


def test_the_code_of_the_document_runs(comba):
    blocks = readme.blocks("python", tree.read("docs/models-python.md"))
    assert len(blocks) == 3
    python(comba.folder, "-c", "\n".join(blocks))
    assert "prompt" in comba.succeed("generate", "--model", "saved", "--prompt", "The", "--max-tokens", 3, "--json")


def test_patch_qwen3_next(tmp_path):
    told = python(tmp_path, EXAMPLES / "patch_qwen3_next.py", "--hidden", "64", "--tokens", "70")
    assert "Qwen3NextRMSNormGated.forward" in told and told.endswith("the same text\n")
    losses = [line.split("loss ")[1].split(",")[0] for line in told.splitlines() if "loss " in line]
    assert len(losses) == 2 and abs(float(losses[0]) - float(losses[1])) < 2e-4


def test_operator_tour(tmp_path):
    pytest.importorskip("matplotlib")
    told = python(tmp_path, EXAMPLES / "operator_tour.py", "pictures")
    assert "read 3.00 times as large, with feedback 1.00 times" in told
    strengths = {float(b): tuple(map(float, errors)) for b, *errors in re.findall(r"b = ([\d.]+): .*? ([\d.]+), .*? ([\d.]+), .*? ([\d.]+)\n", told)}
    assert list(strengths) == [0, 0.5, 1]
    assert strengths[1][0] == 0 and strengths[1][2] == 0  # just written, and after a new value: exact
    assert strengths[0][0] > strengths[0.5][0] > 0.2 and strengths[0][1] > strengths[1][1] and strengths[0][2] > 1
    without, right, too_much = (float(cosine) for cosine in re.findall(r"d = \d: (\d\.\d+)", told))
    assert right == 1 and max(without, too_much) < 0.9
    for name in ("feedback.png", "correction.png"):
        assert (tmp_path / "pictures" / name).stat().st_size > 10_000
