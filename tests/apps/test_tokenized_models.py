"""Models of tokens that are not bytes: what a prompt becomes, with SentencePiece and with a tokenizer.json."""

import json
import os
import sys

import pytest

from apps.program import Program
from apps.training_run import RUN_FILE
from rules.tree import ROOT

TEXTS = [f"Line {i}: the state of {'x' * (i % 4)} things decays.\n" for i in range(200)]


def train(program: Program, vocab: int, *pack) -> None:
    (program.folder / "a.txt").write_text("".join(TEXTS))
    (program.folder / "run.toml").write_text(RUN_FILE.replace("264", str(vocab)))
    program.succeed("data", "pack", "a.txt", "--heldout", "tail", "--out", "data", *pack)
    program.succeed("train", "--config", "run.toml", "--data", "data", "--out", "run", "--set", "train.steps=3")


@pytest.fixture(scope="module")
def of_pieces(comba_program, tmp_path_factory) -> Program:
    """A model of a SentencePiece tokenizer that puts a space before a document."""
    program = Program(comba_program, tmp_path_factory.mktemp("pieces"))
    train(program, 400, "--tokenizer", ROOT / "tests/data/fixtures/prefix_bpe.model")
    return program


@pytest.fixture(scope="module")
def of_a_table(comba_program, tmp_path_factory) -> Program:
    """A model of the ids of a tokenizer.json, which is no longer there."""
    tokenizers = pytest.importorskip("tokenizers")
    program = Program(comba_program, tmp_path_factory.mktemp("table"))
    tool = tokenizers.ByteLevelBPETokenizer()
    tool.train_from_iterator(TEXTS, vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False)
    tool.save(str(program.folder / "tokenizer.json"))
    train(program, 300, "--tokenizer", "tokenizer.json", "--python", sys.executable)
    os.rename(program.folder / "tokenizer.json", program.folder / "gone.json")
    return program


def test_a_text_after_a_state_does_not_start_a_document(of_pieces):
    """Read in two parts that are cut between two pieces, a text is what it is at once."""
    greedy = ("generate", "--model", "run", "--temperature", 0, "--no-echo", "--threads", 1)
    some = (*greedy, "--max-tokens", 12)
    at_once = of_pieces.succeed(*some, "--prompt", "the state decays. the state")
    of_pieces.succeed(*greedy, "--prompt", "the state decays.", "--max-tokens", 0, "--state-out", "a.state")
    assert of_pieces.succeed(*some, "--state-in", "a.state", "--prompt", " the state") == at_once

    def prompt_tokens(*flags):
        return json.loads(of_pieces.succeed(*some, "--json", *flags))["prompt_tokens"]

    begin = prompt_tokens("--prompt", "x") - 1  # BOS
    assert prompt_tokens("--prompt", "x", "--state-in", "a.state") == begin - 1, "the space before a document"


def test_a_prompt_is_encoded_by_python(of_a_table):
    tokenizers = pytest.importorskip("tokenizers")
    tool = tokenizers.Tokenizer.from_file(str(of_a_table.folder / "gone.json"))
    generate = ("generate", "--model", "run", "--python", sys.executable, "--json", "--max-tokens", 5)
    for prompt in ("Line 3: the state of", "é ☃", ""):
        result = json.loads(of_a_table.succeed(*generate, "--prompt", prompt))
        assert result["prompt"] == prompt
        assert result["prompt_tokens"] == 1 + len(tool.encode(prompt).ids)
    echoed = of_a_table.succeed("generate", "--model", "run", "--python", sys.executable, "--prompt", "Line 3")
    assert echoed.startswith("Line 3")


def test_last_words_and_choices_are_encoded_by_python(of_a_table):
    (of_a_table.folder / "words.jsonl").write_text('{"text": "the state decays."}\n')
    evaluate = ("eval", "--model", "run", "--python", sys.executable)
    assert "of words.jsonl" in of_a_table.succeed(*evaluate, "--last-word", "words.jsonl")
    (of_a_table.folder / "choices.jsonl").write_text('{"context": "the", "choices": [" state", " x"], "answer": 0}\n')
    assert "of choices.jsonl" in of_a_table.succeed(*evaluate, "--choices", "choices.jsonl")


def test_what_needs_no_text_needs_no_python(of_a_table):
    without = ("--python", "no-such-python")
    of_a_table.succeed("generate", "--model", "run", "--prompt", "", "--max-tokens", 5, *without)
    of_a_table.succeed("eval", "--model", "run", "--data", "data", *without)


def test_a_python_that_does_not_serve_is_told(of_a_table):
    generate = ("generate", "--model", "run", "--prompt", "the")
    assert "needs Python; got no program 'no-such-python' (name one with --python)" in of_a_table.fail(
        1, *generate, "--python", "no-such-python"
    )
    bare = of_a_table.folder / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    assert "the Python package tokenizers is missing" in of_a_table.fail(1, *generate, "--python", bare)


def test_prompts_are_scored_on_demand(comba):
    lines = [json.dumps({"q": f"what is {i}? ", "a": f"the number {i}"}) for i in range(60)]
    (comba.folder / "a.jsonl").write_text("\n".join(lines))
    (comba.folder / "run.toml").write_text(RUN_FILE)
    comba.succeed("data", "pack", "a.jsonl", "--prompt-field", "q", "--text-field", "a", "--out", "data")
    comba.succeed("train", "--config", "run.toml", "--data", "data", "--out", "run", "--set", "train.steps=3")
    evaluate = ("eval", "--model", "run", "--data", "data", "--split", "train")
    learned, everything = (json.loads(comba.succeed(*evaluate, "--json", *flag)) for flag in ((), ("--score-prompts",)))
    assert learned["documents"] == everything["documents"]
    assert learned["tokens"] + learned["skipped_tokens"] == everything["tokens"] == everything["bytes"]
    assert learned["bytes"] == learned["tokens"] < everything["tokens"] and everything["skipped_tokens"] == 0
    assert learned["nats"] < everything["nats"]
    assert learned["bits_per_byte"] == pytest.approx(learned["nats"] / learned["bytes"] / 0.6931471805599453)
    table = comba.succeed(*evaluate)
    assert f"tokens      {learned['tokens']:,} scored; {learned['skipped_tokens']:,} of prompts only read" in table
    assert "only read" not in comba.succeed(*evaluate, "--score-prompts")
