"""comba ablate: cells by variant and seed, the same in one process or several; a stop and a kill that cost nothing."""

import json
import re
import signal
import subprocess
import time

import pytest

from apps.small_run import pack_small_texts
from comba import plot_ablation

CONFIG = """
[model]
hidden_size = 32
num_hidden_layers = 1
num_heads = 2
head_dim = 16
intermediate_size = 48
vocab_size = 264
initializer_range = 0.02

[train]
steps = 20
batch_size = 2
context_length = 32
learning_rate = 1e-2
warmup_steps = 5

[ablation]
seeds = [1, 2]
points = 4
heldout_windows = 4
recall_length = 4

[[ablation.variants]]
name = "comba"
paper = {recall = 30.4}

[[ablation.variants]]
name = "no-output-gate"
model = {use_output_gate = false}

[[ablation.variants]]
name = "transformer"
model = {model_type = "transformer", num_heads = 2}
"""


@pytest.fixture
def ablate(comba):
    pack_small_texts(comba, repeats=40)
    (comba.folder / "ablation.toml").write_text(CONFIG)
    return lambda out, *words: ["ablate", "--config", "ablation.toml", "--data", "data", "--threads", 1, "--out", out, *words]


def results(comba, folder: str) -> dict:
    return json.loads((comba.folder / folder / "results.json").read_text())


def losses(comba, folder: str) -> dict:
    return {(cell["variant"], cell["seed"]): (cell["train_loss"], cell["heldout"]["loss"]) for cell in results(comba, folder)["cells"]}


def test_each_variant_is_trained_with_each_seed(comba, ablate):
    table = comba.succeed(*ablate("one"))
    found = results(comba, "one")
    assert [(cell["variant"], cell["seed"]) for cell in found["cells"]] == [
        (name, seed) for seed in (1, 2) for name in ("comba", "no-output-gate", "transformer")]
    first = found["cells"][0]
    assert first["paper"] == {"recall": 30.4} and first["changes"] == {} and first["device"] == "cpu" and first["threads"] == 1
    assert first["tokens"] == 20 * 2 * 32 and [point["step"] for point in first["curve"]] == [5, 10, 15, 20]
    assert first["heldout"]["tokens"] == 4 * 32 and first["heldout"]["recalled_tokens"] > 0
    assert json.loads(comba.succeed("--version", "--json"))["commit"] == first["commit"]
    assert "seed" not in found["train"] and found["train"]["steps"] == 20
    assert found["cells"][2]["model"]["model_type"] == "transformer" and found["cells"][2]["model"]["intermediate_size"] == 48
    assert "no-output-gate" in table and not (comba.folder / "one/cells").is_dir() or not list((comba.folder / "one/cells").iterdir())

    comba.succeed(*ablate("two", "--parallel", 2))
    assert losses(comba, "two") == losses(comba, "one")

    assert "one holds results (continue them with --resume)" in comba.fail(2, *ablate("one"))
    table = comba.succeed(*ablate("one", "--resume", "--variants", "transformer", "--seeds", "3"))
    assert results(comba, "one")["cells"][:6] == found["cells"]
    assert re.search(r"no-output-gate +2  [0-9.]+ \+- [0-9.]+\n", table)
    alone = comba.succeed(*ablate("alone", "--variants", "no-output-gate", "--seeds", "1"))
    assert re.search(r"no-output-gate +1  [0-9.]+\n", alone)
    assert [(cell["variant"], cell["seed"]) for cell in results(comba, "one")["cells"][6:]] == [("comba", 3), ("transformer", 3)]
    assert plot_ablation.main([str(comba.folder / "one/results.json"), "--out", str(comba.folder / "one.svg")]) == 0


@pytest.mark.parametrize("number, parallel", [(signal.SIGINT, 1), (signal.SIGTERM, 2), (signal.SIGKILL, 2)])
def test_a_sweep_that_ends_early_goes_on(comba, ablate, number, parallel):
    flags = ["--set", "train.steps=200", "--set", "train.checkpoint_interval=20", "--variants", "no-output-gate", "--seeds", 1]
    process = subprocess.Popen([comba.path, *map(str, ablate("stopped", *flags, "--parallel", parallel))], cwd=comba.folder, stderr=subprocess.PIPE, text=True)
    cells = comba.folder / "stopped/cells"
    deadline = time.monotonic() + 60
    while not list(cells.glob("*/checkpoint/training.json")):
        assert time.monotonic() < deadline and process.poll() is None, "nothing was saved"
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        assert "continue with --resume" in told
    else:
        time.sleep(1)  # the other processes end by themselves
    assert len(results(comba, "stopped")["cells"]) < 2
    comba.succeed(*ablate("stopped", *flags, "--resume"))
    comba.succeed(*ablate("whole", *flags))
    assert losses(comba, "stopped") == losses(comba, "whole")


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--variants", "no-output-gat"], "there is no variant 'no-output-gat'; the nearest is 'no-output-gate'"),
        (["--set", "ablation.point=3"], "there is no key ablation.point"),
        (["--set", "train.steps=0"], "steps must be at least 1; got 0"),
        (["--set", "model.head_dim=1000"], "variant comba: [model_config] head_dim"),
        (["--set", "model.vocab_size=9"], "vocab_size must be at least the data set's vocabulary of 257; got 9"),
        (["--seeds", "-1"], "a seed must be at least 0; got -1"),
        (["--resume"], "there is nothing to resume"),
        (["--set", "ablation.variants=[{name = 'x', modl = {}}]"], "an entry of ablation.variants must be {name = "),
    ],
)
def test_what_makes_no_sense_is_refused(comba, ablate, words, complaint):
    assert complaint in comba.fail(2, *ablate("out", *words))
