"""comba train, eval and generate, from the outside: a run that is stopped in any way goes on to the same bits."""

import json
import pathlib
import signal

import pytest

from apps.training_run import LAST, TRAIN, start_run, steps_logged, weights


def send_during_run(program, run: str, signal_number: int) -> tuple[int, str]:
    """Exit code and stderr of a run that gets a signal once it has made a few steps."""
    process = start_run(program, run)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_the_same_seed_gives_the_same_bits(packed):
    packed.succeed(*TRAIN, "a")
    packed.succeed(*TRAIN, "b")
    packed.succeed(*TRAIN, "c", "--set", "train.seed=2")
    assert weights(packed, "a") == weights(packed, "b")
    assert weights(packed, "a") != weights(packed, "c")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(packed, number):
    packed.succeed(*TRAIN, "whole")
    code, errors = send_during_run(packed, "stopped", number)
    assert code == 128 + number, errors
    assert "everything is saved in stopped (continue with --resume)" in errors
    packed.succeed(*TRAIN, "stopped", "--resume")
    assert weights(packed, "whole") == weights(packed, "stopped")
    assert steps_logged(packed, "stopped") == list(range(1, 61))


def test_no_signal_is_handled_in_a_thread_that_computes(packed):
    """A handler's frame would land in the heap wherever generated code uses the stack pointer for data."""
    process = start_run(packed, "run")
    stop_signals = 1 << signal.SIGINT - 1 | 1 << signal.SIGTERM - 1
    num_open = 0
    for thread in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        status = dict(line.split(":\t") for line in (thread / "status").read_text().splitlines() if line.startswith("Sig"))
        assert int(status["SigCgt"], 16) & stop_signals == 0
        num_open += int(status["SigBlk"], 16) & stop_signals != stop_signals
    assert num_open == 1  # the thread that waits for them
    process.kill()
    process.communicate()


def test_a_killed_run_goes_on_from_its_last_checkpoint(packed):
    packed.succeed(*TRAIN, "whole")
    code, _ = send_during_run(packed, "killed", signal.SIGKILL)
    assert code == -signal.SIGKILL
    packed.succeed(*TRAIN, "killed", "--resume")
    assert weights(packed, "whole") == weights(packed, "killed")
    assert steps_logged(packed, "killed") == list(range(1, 61))
    assert not [path for path in (packed.folder / "killed").iterdir() if path.name.startswith(".")]


def test_a_run_is_not_overwritten(packed):
    packed.succeed(*TRAIN, "run")
    before = weights(packed, "run")
    assert "holds a run of 60 steps (continue it with --resume)" in packed.fail(2, *TRAIN, "run")
    assert "seed 1 became 2" in packed.fail(2, *TRAIN, "run", "--resume", "--set", "train.seed=2")
    assert "nothing is left to do after step 60\n" in packed(*TRAIN, "run", "--resume").stderr
    assert weights(packed, "run") == before


def test_init_begins_with_another_models_weights_and_configuration(packed):
    packed.succeed(*TRAIN, "run")
    settings = ("--data", "data", "--set", "train.steps=4", "--set", "train.context_length=32", "--set", "train.threads=1")
    packed.succeed("train", "--init", "run", *settings, "--out", "tuned")
    first = json.loads((packed.folder / "run" / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    tuned = json.loads((packed.folder / "tuned" / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    assert tuned < first - 1
    assert 'init = "run"' in packed.succeed("train", "--init", "run", *settings, "--out", "x", "--print-config")
    wider = ("--set", "model.hidden_size=64", "--out", "wider")
    assert "each tensor must have the shape" in packed.fail(2, "train", "--init", "run", *settings, *wider)
    assert "got neither in nowhere" in packed.fail(1, "train", "--init", "nowhere", *settings, "--out", "x")


def test_samples_show_what_was_learned(packed):
    sample = ("--set", "train.sample_interval=30", "--set", "train.sample_prompt=The ", "--set", "train.sample_tokens=9")
    result = packed(*TRAIN, "run", *sample)
    lines = (packed.folder / "run" / "metrics.jsonl").read_text().splitlines()
    samples = [record for record in map(json.loads, lines) if "sample" in record]
    assert [record["step"] for record in samples] == [30, 60]
    assert all(record["sample"].startswith("The ") for record in samples)
    assert "step 60: The " in result.stderr


def test_diagnostics_tell_what_the_control_loop_does(packed):
    packed.succeed(*TRAIN, "run", "--diagnostics", "30")
    lines = (packed.folder / "run" / "metrics.jsonl").read_text().splitlines()
    diagnoses = [record for record in map(json.loads, lines) if "control_loops" in record]
    assert [record["step"] for record in diagnoses] == [0, 30, 60]
    first, last = (record["control_loops"][0] for record in (diagnoses[0], diagnoses[-1]))
    assert first["module"] == "model.layers.0.attn"
    for loop in (first, last):
        assert loop["decay"] == sorted(loop["decay"]) and 0 < loop["decay"][3] <= 1
        assert all(below < decay for below, decay in zip(loop["key_eigenvalue"], loop["decay"]))
        assert 0 <= loop["negative_share"] <= 1 and 0 <= loop["key_coherence"] <= 1.0001
        assert all(tokens > 0 for tokens in loop["memory"] + loop["decay_memory"])
    assert first["correction"] == pytest.approx(1) and first["query_ratio"] != last["query_ratio"]
    assert "diagnostics_interval = 30" in packed.succeed(*TRAIN, "x", "--diagnostics", "30", "--print-config")


def test_diagnostics_need_a_control_loop(packed):
    config = {"model_type": "gla", "hidden_size": 32, "num_hidden_layers": 1, "num_heads": 2, "vocab_size": 264}
    (packed.folder / "gla.json").write_text(json.dumps(config))
    command = ("train", "--data", "data", "--out", "run", "--set", "model.file=gla.json")
    assert "diagnostics are of Comba and Gated DeltaNet layers" in packed.fail(2, *command, "--diagnostics", "5")
    assert "diagnostics_interval must be at least 0; got -1" in packed.fail(2, *command, "--diagnostics", "-1")


def test_a_run_that_cannot_be_starts_nothing(packed):
    assert "nowhere/index.json" in packed.fail(1, "train", "--config", "run.toml", "--data", "nowhere", "--out", "run")
    assert "vocabulary of 257; got 200" in packed.fail(2, *TRAIN, "run", "--set", "model.vocab_size=200")
    assert "run.toml/below" in packed.fail(1, *TRAIN, "run.toml/below")
    assert "must have a metrics.jsonl" in packed.fail(2, *TRAIN, "elsewhere", "--resume")
    assert not (packed.folder / "elsewhere").exists()
    assert "needs --data DIR" in packed.fail(2, "train", "--config", "run.toml", "--out", "run")


def test_eval_of_a_run_its_checkpoint_and_the_untrained_model(packed):
    packed.succeed(*TRAIN, "run")

    def evaluate(*arguments):
        return json.loads(packed.succeed("eval", "--data", "data", "--json", *arguments))

    trained = evaluate("--model", "run")
    assert trained["model"] == f"run/{LAST}"
    assert trained["bytes"] == trained["tokens"] == 380
    assert trained == evaluate("--model", f"run/{LAST}")
    untrained = evaluate("--model", "run", "--untrained")
    assert untrained["bits_per_byte"] == pytest.approx(8.04, abs=0.1)
    assert trained["bits_per_byte"] < 5
    assert evaluate("--model", "run", "--split", "train")["bytes"] == 1140
    table = packed.succeed("eval", "--model", "run", "--data", "data")
    assert f"bits/byte   {trained['bits_per_byte']:.4f}" in table


def test_a_damaged_or_foreign_model_is_told_in_one_line(packed):
    packed.succeed(*TRAIN, "run")
    evaluate = ("eval", "--data", "data", "--model")
    assert "got neither in nowhere" in packed.fail(1, *evaluate, "nowhere")
    assert "got neither in data" in packed.fail(1, *evaluate, "data")
    checkpoint = packed.folder / "run" / LAST
    content = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(content[:-100])
    assert "model.safetensors" in packed.fail(1, *evaluate, "run")
    (checkpoint / "model.safetensors").write_bytes(content)
    (checkpoint / "comba_tokenizer.json").unlink()
    assert "comba_tokenizer.json" in packed.fail(1, *evaluate, "run")


def test_generate_continues_the_prompt(packed):
    packed.succeed(*TRAIN, "run")

    def generate(*arguments, tokens=40):
        return packed.succeed("generate", "--model", "run", "--prompt", "The text", "--max-tokens", tokens, *arguments)

    text = generate("--seed", 5)
    assert text.startswith("The text")
    assert text == generate("--seed", 5)
    assert text != generate("--seed", 6)
    assert generate("--temperature", 0) == generate("--temperature", 0, "--seed", 6)
    assert generate(tokens=0) == "The text\n"


def test_generated_bytes_that_are_no_utf8_are_replaced(packed):
    packed.succeed(*TRAIN, "run")
    wild = ("generate", "--model", "run", "--prompt", "\u00e9", "--max-tokens", 300, "--temperature", 100)
    text = packed.succeed(*wild)  # decoded strictly
    assert text.startswith("\u00e9")
    assert "\ufffd" in text


def test_generate_complains_before_it_prints(packed):
    packed.succeed(*TRAIN, "run")
    generate = ("generate", "--model", "run", "--prompt", "x")
    assert "top_p must be in (0, 1]; got 3" in packed.fail(2, *generate, "--top-p", 3)
    assert "temperature must be at least 0; got -1" in packed.fail(2, *generate, "--temperature", -1)
