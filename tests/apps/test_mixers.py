"""Every kind of model that configs/ has a tiny one of: trained, evaluated, sampled; and comba inspect mixers."""

import json
import re

import pytest

from rules.tree import ROOT

TINY = sorted(path.name for path in (ROOT / "configs").glob("*-tiny.json"))
RUN = """
[model]
file = "{config}"

[train]
steps = 3
batch_size = 2
context_length = 48
warmup_steps = 1
checkpoint_interval = 3
threads = 1
"""


@pytest.mark.parametrize("config", TINY)
def test_every_tiny_model_is_trained_evaluated_and_sampled(packed, config):
    (packed.folder / "run.toml").write_text(RUN.format(config=ROOT / "configs" / config))
    packed.succeed("train", "--config", "run.toml", "--data", "data", "--out", "run")
    losses = [json.loads(line)["loss"] for line in (packed.folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < loss < 6 for loss in losses), "a model that knows nothing has ln 264 = 5.6 nats"
    packed.succeed("eval", "--model", "run", "--data", "data")
    told = packed.succeed("generate", "--model", "run", "--prompt", "The text", "--max-tokens", "20", "--seed", "1")
    assert told.startswith("The text") and len(told) > len("The text")


def test_layers_are_grouped_under_every_name_of_the_backbone(comba):
    table = comba.succeed("inspect", "model", ROOT / "configs" / "mamba2-tiny.json")
    in_proj = [line for line in table.splitlines() if "in_proj" in line]
    assert [re.sub(" +", " ", line) for line in in_proj] == ["backbone.layers.*.mixer.in_proj.weight [292, 64] x 2 37,376"]


def test_the_table_of_mixers(comba):
    lines = comba.succeed("inspect", "mixers").splitlines()
    rows = {line[:21].strip(): re.split("  +", line[21:].strip()) for line in lines[1:-1]}
    assert list(rows)[0] == "softmax attention" and list(rows)[-1] == "Comba IPLR" and len(rows) == 15
    loops = {name: row[1] for name, row in rows.items()}
    assert {name for name, loop in loops.items() if loop == "closed"} == {
        "Gated DeltaNet", "RWKV7", "TTT-Linear", "TTT-MLP", "MIRAS", "Comba SPLR", "Comba IPLR",
    }
    # 4 heads of 256 x 256 floats, and three tails of 3 tokens of 1024 channels
    assert rows["Comba SPLR"][2] == "1.1 MB"
    assert rows["linear attention"][2] == "1.0 MB"
    # q, k, v, o and what the rule costs: 4 K V a head
    assert rows["linear attention"][4] == f"{2 * 4 * 1024 * 1024 + 4 * 4 * 256 * 256:,}"


def test_attention_alone_remembers_more_of_more_tokens(comba):
    def states(tokens: int) -> dict[str, str]:
        table = comba.succeed("inspect", "mixers", "--tokens", tokens, "--hidden-size", 512)
        return {line[:21].strip(): re.split("  +", line[21:].strip())[2] for line in table.splitlines()[1:-1]}

    short, long = states(1000), states(100_000)
    assert [name for name in short if short[name] != long[name]] == ["softmax attention", "sliding window"]


def test_a_table_that_cannot_be(comba):
    assert "must be a multiple of 256; got 100" in comba.fail(2, "inspect", "mixers", "--hidden-size", 100)
    assert "must be at least 1; got 0" in comba.fail(2, "inspect", "mixers", "--tokens", 0)
