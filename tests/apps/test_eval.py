"""comba eval, from the outside: documents whole and in windows, last words, choices."""

import json

import pytest

from apps.program import Program
from apps.small_run import train_small_run

EVAL = ("eval", "--model", "run", "--threads", 1)


@pytest.fixture(scope="module")
def comba(comba_program, tmp_path_factory) -> Program:
    """The program in a folder with a trained model. The tests write files of names of their own."""
    program = Program(comba_program, tmp_path_factory.mktemp("eval"))
    train_small_run(program)
    return program


def write_lines(comba, name: str, objects: list[object]) -> str:
    (comba.folder / name).write_text("".join(json.dumps(each) + "\n" for each in objects))
    return name


def test_documents_are_read_whole_or_in_windows(comba):
    def evaluate(*flags):
        return json.loads(comba.succeed(*EVAL, "--data", "data", "--json", *flags))

    whole = evaluate()
    assert whole == evaluate("--carry-state")
    assert whole["window"] is None
    assert whole["loss"] == pytest.approx(whole["nats"] / whole["tokens"])
    windows = evaluate("--window", 3)
    assert windows["window"] == 3
    assert windows["tokens"] == whole["tokens"] == 380
    assert windows["nats"] > whole["nats"]
    assert "window      3 tokens" in comba.succeed(*EVAL, "--data", "data", "--window", 3)


def test_each_document_has_a_score(comba):
    flags = ("--data", "data", "--split", "train", "--documents")
    *documents, total = map(json.loads, comba.succeed(*EVAL, *flags, "--json").splitlines())
    assert sorted(each["document"] for each in documents) == ["a.txt", "b.txt", "d.txt"]
    assert sum(each["bytes"] for each in documents) == total["bytes"]
    assert sum(each["nats"] for each in documents) == pytest.approx(total["nats"])
    assert "b.txt" in comba.succeed(*EVAL, *flags)


def test_last_words_the_model_knows_and_does_not(comba):
    texts = [{"text": "The text of b.txt. The text"}, {"text": "The text of b.txt. The of"}]
    result = json.loads(comba.succeed(*EVAL, "--last-word", write_lines(comba, "words.jsonl", texts), "--json"))
    assert (result["texts"], result["correct"], result["accuracy"]) == (2, 1, 0.5)
    assert result["perplexity"] > 1
    table = comba.succeed(*EVAL, "--last-word", "words.jsonl")
    assert "accuracy    0.5000" in table
    untrained = json.loads(comba.succeed(*EVAL, "--last-word", "words.jsonl", "--json", "--untrained"))
    assert untrained["correct"] == 0 and untrained["perplexity"] > result["perplexity"]


def test_choices_by_likelihood(comba):
    choices = [" text of", " of text", " xylo"]
    questions = [{"context": "The text of b.txt. The", "choices": choices, "answer": answer} for answer in (0, 1, 0)]
    name = write_lines(comba, "choices.jsonl", questions)
    result = json.loads(comba.succeed(*EVAL, "--choices", name, "--json"))
    assert (result["questions"], result["correct"], result["correct_normalized"]) == (3, 2, 2)
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert "0.6667, 0.6667 normalized" in comba.succeed(*EVAL, "--choices", name)


@pytest.mark.parametrize(
    "flag, line, complaint",
    [
        ("--last-word", {"word": "x"}, "text must be a text; got nothing (wrong.jsonl:1)"),
        ("--last-word", {"text": "one"}, "some words, a space and a last word; got 'one' (text 1) (wrong.jsonl)"),
        ("--choices", {"context": "x", "choices": "ab", "answer": 0}, 'choices must be a list of texts; got "ab"'),
        ("--choices", {"context": "x", "choices": ["a", 1], "answer": 0}, "choices must be texts; got 1"),
        ("--choices", {"context": "x", "choices": ["a", "b"]}, "answer must be a whole number; got nothing"),
        ("--choices", {"context": "x", "choices": ["a", "b"], "answer": 2}, "answer must be from 0 to 1; got 2 (question 1) (wrong.jsonl)"),
        ("--choices", [], "a line must be a JSON object; got [] (wrong.jsonl:1)"),
    ],
)
def test_wrong_examples_are_named(comba, flag, line, complaint):
    assert complaint in comba.fail(1, *EVAL, flag, write_lines(comba, "wrong.jsonl", [line]))


def test_wrong_usage(comba):
    comba.succeed("data", "pack", "texts/a.txt", "--out", "one.data")
    assert "got none in heldout of one.data (`comba data pack --heldout tail`" in comba.fail(2, *EVAL, "--data", "one.data")
    assert "bytes       380 in 1 document, read in" in comba.succeed(*EVAL, "--data", "one.data", "--split", "train")
    assert "--data, --last-word or --choices" in comba.fail(2, *EVAL)
    assert "excludes" in comba.fail(2, *EVAL, "--data", "data", "--last-word", "x")
    assert "excludes" in comba.fail(2, *EVAL, "--data", "data", "--window", 3, "--carry-state")
    assert "requires" in comba.fail(2, *EVAL, "--choices", "x", "--window", 3)
    (comba.folder / "empty.jsonl").write_text("\n")
    assert "at least one text; got none (empty.jsonl)" in comba.fail(1, *EVAL, "--last-word", "empty.jsonl")
