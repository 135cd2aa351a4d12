"""comba generate, from the outside: many prompts, stop strings, states."""

import json
import signal
import subprocess
import time

import pytest

from apps.program import Program
from apps.small_run import train_small_run

GREEDY = ("generate", "--model", "run", "--temperature", 0, "--threads", 1)


@pytest.fixture(scope="module")
def comba(comba_program, tmp_path_factory) -> Program:
    """The program in a folder with a trained model. The tests write files of names of their own."""
    program = Program(comba_program, tmp_path_factory.mktemp("generate"))
    train_small_run(program)
    return program


def continuation(comba, prompt: str, tokens: int, *flags) -> str:
    """Greedily, without the prompt and the newline at the end."""
    return comba.succeed(*GREEDY, "--prompt", prompt, "--max-tokens", tokens, "--no-echo", *flags)[:-1]


def test_the_prompt_may_be_a_file_or_standard_input(comba):
    expected = continuation(comba, "The text\n", 30)
    (comba.folder / "prompt.txt").write_text("The text\n")
    flags = ("--max-tokens", 30, "--no-echo")
    assert comba.succeed(*GREEDY, *flags, "--prompt-file", "prompt.txt")[:-1] == expected
    assert comba.succeed(*GREEDY, *flags, "--prompt-file", "-", input="The text\n")[:-1] == expected
    assert comba.succeed(*GREEDY, "--max-tokens", 30, "--prompt-file", "prompt.txt") == f"The text\n{expected}\n"


def test_long_prompts_are_read_in_chunks(comba):
    prompt = "The text of b.txt. " * 150
    assert continuation(comba, prompt, 40) == continuation(comba, prompt, 40, "--chunk", 100)


def test_the_weights_may_be_bf16(comba):
    text = continuation(comba, "The text", 30, "--dtype", "bf16")
    assert len(text) > 10
    assert continuation(comba, "The text", 30, "--dtype", "f32") == continuation(comba, "The text", 30)
    state = ("--state-out", "bf16.state", "--dtype", "bf16")
    continuation(comba, "The text", 10, *state)
    error = comba.fail(2, *GREEDY, "--state-in", "bf16.state", "--max-tokens", 1)
    assert "weights are others" in error
    assert "f32" in comba.fail(2, *GREEDY, "--prompt", "x", "--dtype", "fp8")


def test_the_weights_may_be_int8(comba):
    text = continuation(comba, "The text", 30, "--weights", "int8")
    assert text == continuation(comba, "The text", 30)  # learned well enough for that
    continuation(comba, "The text", 10, "--state-out", "int8.state", "--weights", "int8")
    assert "weights are others" in comba.fail(2, *GREEDY, "--state-in", "int8.state", "--max-tokens", 1)
    comba.succeed(*GREEDY, "--state-in", "int8.state", "--max-tokens", 1, "--weights", "int8")
    assert "int8" in comba.fail(2, *GREEDY, "--prompt", "x", "--weights", "int4")

    def score(*flags) -> float:
        return json.loads(comba.succeed("eval", "--model", "run", "--data", "data", "--json", *flags))["bits_per_byte"]

    assert 0 < abs(score("--weights", "int8") - score()) < 0.02
    assert comba.succeed("logits", "--model", "run", "--ids", "1,2,3", "--weights", "int8").count("->") == 3


def test_nothing_of_a_stop_string_is_printed(comba):
    text = continuation(comba, "The text", 60)
    stop = text[20:25]
    before = text[: text.index(stop)]
    assert continuation(comba, "The text", 60, "--stop", stop) == before
    assert continuation(comba, "The text", 60, "--stop", "nowhere", "--stop", stop) == before
    assert continuation(comba, "The text", 60, "--stop", "nowhere") == text
    cut = len(before) + 2  # the end might have become a stop string
    assert continuation(comba, "The text", cut, "--stop", stop) == text[:cut]
    result = json.loads(continuation(comba, "The text", 60, "--stop", stop, "--json"))
    assert (result["text"], result["finish"]) == (before, "stop")


def test_json_tells_what_was_generated(comba):
    result = json.loads(continuation(comba, "The text", 25, "--json"))
    assert result["text"] == continuation(comba, "The text", 25)
    assert result["prompt"] == "The text"
    assert (result["index"], result["prompt_tokens"], result["tokens"]) == (0, 9, 25)
    assert result["finish"] == "length"
    assert result["seconds"] > 0 and result["tokens_per_second"] > 0


def test_many_prompts_give_the_texts_each_gives_alone(comba):
    prompts = ["The text of", "", "b.txt. The text of b.txt. T", "x", "The text", "d"]
    lines = "\n".join(json.dumps({"prompt": prompt, "id": 7}) for prompt in prompts) + "\n\n"
    (comba.folder / "prompts.jsonl").write_text(lines)
    alone = [continuation(comba, prompt, 30) for prompt in prompts]
    for batch in (1, 4):
        printed = comba.succeed(*GREEDY, "--prompts", "prompts.jsonl", "--max-tokens", 30, "--batch", batch)
        results = [json.loads(line) for line in printed.splitlines()]
        assert [result["index"] for result in results] == list(range(len(prompts)))
        assert [result["prompt"] for result in results] == prompts
        assert [result["text"] for result in results] == alone


def test_bytes_that_are_no_utf8_are_replaced_in_json(comba):
    (comba.folder / "bytes").write_bytes(b"\xff\xc3")
    wild = ("generate", "--model", "run", "--prompt-file", "bytes", "--max-tokens", 300, "--temperature", 100, "--json")
    result = json.loads(comba.succeed(*wild))
    assert result["prompt"] == "\ufffd\ufffd"
    assert "\ufffd" in result["text"]


def test_a_text_goes_on_from_its_state(comba):
    whole = continuation(comba, "The text", 50)
    first = continuation(comba, "The text", 20, "--state-out", "text.state")
    rest = comba.succeed(*GREEDY, "--state-in", "text.state", "--max-tokens", 30)[:-1]
    assert first + rest == whole
    # Read only; then a prompt that goes on.
    assert continuation(comba, "The te", 0, "--state-out", "text.state") == ""
    assert continuation(comba, "xt", 50, "--state-in", "text.state") == whole


def test_a_state_has_one_size(comba):
    def size(prompt: str) -> int:
        continuation(comba, prompt, 5, "--state-out", "size.state", "--repetition-window", 4)
        return (comba.folder / "size.state").stat().st_size

    # The position in the header has more digits.
    assert abs(size("The text of b.txt. " * 100) - size("The text")) <= 16


def test_the_repetition_penalty_and_min_p_change_the_text(comba):
    text = continuation(comba, "The text", 40)
    assert continuation(comba, "The text", 40, "--repetition-penalty", 5) != text
    assert continuation(comba, "The text", 40, "--repetition-penalty", 5, "--repetition-window", 0) == text
    hot = ("generate", "--model", "run", "--prompt", "The text", "--no-echo", "--max-tokens", 40, "--temperature", 3)
    assert comba.succeed(*hot)[:-1] != text
    assert comba.succeed(*hot, "--min-p", 1)[:-1] == text


def test_states_of_other_models_are_refused(comba):
    continuation(comba, "x", 0, "--state-out", "mine.state")
    train = ("train", "--config", "run.toml", "--data", "data", "--set", "train.steps=1", "--out")
    comba.succeed(*train, "weights", "--set", "train.seed=2")
    comba.succeed(*train, "layers", "--set", "model.num_hidden_layers=2")
    go_on = ("generate", "--state-in", "mine.state", "--model")
    assert "its weights are others" in comba.fail(2, *go_on, "weights")
    assert "its configuration is another" in comba.fail(2, *go_on, "layers")
    assert "must be a text state" in comba.fail(1, *GREEDY, "--state-in", "run/checkpoint-000060/model.safetensors")
    assert "nowhere" in comba.fail(1, *GREEDY, "--state-in", "nowhere")
    content = (comba.folder / "mine.state").read_bytes()
    (comba.folder / "cut.state").write_bytes(content[:-9])
    assert "cut.state" in comba.fail(1, *GREEDY, "--state-in", "cut.state")


def test_wrong_usage_is_told_before_anything_is_printed(comba):
    prompt = (*GREEDY, "--prompt", "x")
    assert "--prompt, --prompt-file, --prompts or --state-in" in comba.fail(2, *GREEDY)
    assert "excludes" in comba.fail(2, *prompt, "--prompt-file", "y")
    assert "excludes" in comba.fail(2, *GREEDY, "--prompts", "y", "--state-out", "z")
    assert "min_p must be in [0, 1]; got 2" in comba.fail(2, *prompt, "--min-p", 2)
    assert "repetition_penalty must be above 0; got 0" in comba.fail(2, *prompt, "--repetition-penalty", 0)
    assert "at least one character" in comba.fail(2, *prompt, "--stop", "")
    assert "'nowhere'" in comba.fail(1, *GREEDY, "--prompt-file", "nowhere")
    assert "no/folder" in comba.fail(1, *prompt, "--state-out", "no/folder/text.state")
    for line, complaint in [("{", "must be a JSON object"), ('{"text": "x"}', "prompt must be a text; got nothing"),
                            ('{"prompt": 3}', "prompt must be a text; got 3")]:
        (comba.folder / "wrong.jsonl").write_text('{"prompt": "fine"}\n' + line)
        message = comba.fail(1, *GREEDY, "--prompts", "wrong.jsonl")
        assert complaint in message and "wrong.jsonl:2" in message


def test_a_signal_ends_the_text_and_keeps_its_state(comba):
    command = [comba.path, *map(str, GREEDY), "--prompt", "The text", "--max-tokens", "100000000", "--state-out", "long.state"]
    process = subprocess.Popen(command, cwd=comba.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert len(process.stdout.read(100)) == 100
    process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 60
    text = process.stdout.read()
    errors = process.stderr.read().decode()
    assert process.wait(timeout=deadline - time.monotonic()) == 128 + signal.SIGINT, errors
    assert text.endswith(b"\n")
    assert "stopped by a signal" in errors
    comba.succeed(*GREEDY, "--state-in", "long.state", "--max-tokens", 3)
