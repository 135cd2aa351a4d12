"""comba.lm_eval: the numbers of lm-evaluation-harness are those of `comba eval` on the same texts."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("lm_eval")

from apps.program import Program
from apps.small_run import train_small_run

TASKS = pathlib.Path(__file__).parent / "harness_tasks"
LAST_WORDS = ["The text of b.txt. The text", "The text of b.txt. The of", "The text of a.txt. The text of"]
CHOICES = [
    {"context": "The text of b.txt. The", "choices": [" text of", " of text", " xylo"], "answer": answer}
    for answer in (0, 1, 0)
]


@pytest.fixture(scope="module")
def comba(comba_program, tmp_path_factory) -> Program:
    """The program beside a trained model and what the tasks read."""
    program = Program(comba_program, tmp_path_factory.mktemp("harness"))
    train_small_run(program)
    rows = {
        "documents": [{"text": (program.folder / "texts" / "c.txt").read_text()}],  # what is held out
        "last_words": [{"text": text} for text in LAST_WORDS],
        "choices": CHOICES,
        "writing": [{"prompt": prompt, "written": written(program, prompt)} for prompt in ("The", "The text of b", "x")],
    }
    for name, objects in rows.items():
        (program.folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in objects))
    return program


def written(comba: Program, prompt: str) -> str:
    flags = ("--temperature", 0, "--max-tokens", 30, "--stop", ".", "--no-echo", "--json")
    return json.loads(comba.succeed("generate", "--model", "run", "--prompt", prompt, *flags))["text"]


@pytest.fixture(scope="module")
def harness(comba) -> dict:
    """The harness's results by task."""
    command = [
        sys.executable, "-m", "comba.lm_eval", "run", "--model", "comba", "--model_args", "pretrained=run", "--device", "cpu",
        "--tasks", "comba_documents,comba_last_words,comba_choices,comba_writing", "--include_path", str(TASKS),
        "--batch_size", "2", "--output_path", "results",
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(comba.folder / "cache")}
    result = subprocess.run(
        command, cwd=comba.folder, capture_output=True, text=True, timeout=300, env={**os.environ, **offline}
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (file,) = (comba.folder / "results").rglob("results*.json")
    return json.loads(file.read_text())["results"]


def of_program(comba: Program, *flags) -> dict:
    return json.loads(comba.succeed("eval", "--model", "run", "--json", *flags))


def test_bits_per_byte_of_documents(comba, harness):
    expected = of_program(comba, "--data", "data")["bits_per_byte"]
    assert harness["comba_documents"]["bits_per_byte,none"] == pytest.approx(expected, rel=1e-5)


def test_last_words(comba, harness):
    expected = of_program(comba, "--last-word", "last_words.jsonl")
    assert 0 < expected["accuracy"] < 1
    assert harness["comba_last_words"]["acc,none"] == pytest.approx(expected["accuracy"])
    assert harness["comba_last_words"]["perplexity,none"] == pytest.approx(expected["perplexity"], rel=1e-5)


def test_choices(comba, harness):
    expected = of_program(comba, "--choices", "choices.jsonl")
    assert 0 < expected["accuracy"] < 1
    assert harness["comba_choices"]["acc,none"] == pytest.approx(expected["accuracy"])
    assert harness["comba_choices"]["acc_norm,none"] == pytest.approx(expected["accuracy_normalized"])


def test_generated_texts(harness):
    assert harness["comba_writing"]["exact_match,none"] == 1
