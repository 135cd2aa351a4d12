"""Run files: what is in force, and what is wrong with them."""

import subprocess
import tomllib

import pytest

from apps.program import Program
from rules.tree import ROOT

RUN_FILE = """\
[model]
hidden_size = 64
num_hidden_layers = 2
num_heads = 2
head_dim = 32
vocab_size = 264

[data]
path = "data"

[train]
steps = 7           # line 12
learning_rate = 1   # a whole number will do
beta2 = 0.97

[output]
path = "run"
"""


@pytest.fixture
def train(comba):
    (comba.folder / "run.toml").write_text(RUN_FILE)

    def settings(*arguments):
        return tomllib.loads(comba.succeed("train", "--config", "run.toml", *arguments, "--print-config"))

    def complaint(*arguments, exit_code=2):
        return comba.fail(exit_code, "train", "--config", "run.toml", *arguments)

    settings.complaint = complaint
    settings.program = comba
    settings.file = comba.folder / "run.toml"
    return settings


def test_the_file_is_over_the_defaults_and_set_is_over_the_file(train):
    settings = train("--set", "train.steps=9", "--set", "train.weight_decay=0.1", "--set", "train.steps=11")
    assert settings["train"]["steps"] == 11
    assert settings["train"]["beta2"] == 0.97
    assert settings["train"]["weight_decay"] == 0.1
    assert settings["train"]["beta1"] == 0.9
    assert settings["model"]["hidden_size"] == 64


def test_what_is_printed_gives_the_same_again(comba, train):
    printed = comba.succeed("train", "--config", "run.toml", "--set", "model.norm_eps=1e-5", "--print-config")
    assert "norm_eps = 1e-05\n" in printed and "beta1 = 0.9\n" in printed, "numbers in their fewest digits"
    (comba.folder / "again.toml").write_text(printed)
    assert comba.succeed("train", "--config", "again.toml", "--print-config") == printed


def test_flags_are_settings_too(train):
    assert train("--data", "other", "--out", "2024")["data"] == {"path": "other"}
    assert train("--data", "other", "--out", "2024")["output"] == {"path": "2024"}


@pytest.mark.parametrize("value", ["2024", "true", "a b", "x=y", "'quoted", "1979-05-27", "[1", "ünï"])
def test_a_text_needs_no_quotes_on_the_command_line(train, value):
    assert train("--set", f"data.path={value}")["data"]["path"] == value


def test_tables_can_be_set_whole_or_by_key(train):
    whole = train("--set", "model.attn={layers=[1], num_heads=2}")
    by_key = train("--set", "model.attn.layers=[1]", "--set", "model.attn.num_heads=2")
    assert whole["model"]["attn"] == by_key["model"]["attn"]
    assert whole["model"]["attn"]["layers"] == [1]
    assert train()["model"].get("attn") is None


@pytest.mark.parametrize(
    "assignment, complaint",
    [
        ("train.stpes=3", "there is no key train.stpes (--set train.stpes=3); the nearest is train.steps"),
        ("trian.steps=3", "there is no key trian.steps (--set trian.steps=3); the nearest is train.steps"),
        ("train.steps.more=3", "train.steps must be a whole number; got {"),
        ("train.steps=abc", 'train.steps must be a whole number; got "abc" (string; --set train.steps=abc)'),
        ("train.steps=1.5", "train.steps must be a whole number; got 1.5 (floating-point; --set train.steps=1.5)"),
        ("train.beta1=true", "train.beta1 must be a number; got true (boolean; --set train.beta1=true)"),
        ("train.beta1=[1]", "train.beta1 must be a number; got [1] (array; --set train.beta1=[1])"),
        ("train.steps=99999999999999999999", "train.steps must be a whole number"),
        ("model.hiden_size=3", "hidden_size"),
        ("steps=3", "--set takes SECTION.KEY=VALUE; got 'steps=3'"),
        ("train.steps", "--set takes SECTION.KEY=VALUE; got 'train.steps'"),
        ("train.st eps=3", "--set takes SECTION.KEY=VALUE"),
        ("train..steps=3", "--set train..steps=3"),
    ],
)
def test_wrong_assignments(train, assignment, complaint):
    assert complaint in train.complaint("--set", assignment)


@pytest.mark.parametrize(
    "right, wrong, complaint",
    [
        ("steps = 7", "stpes = 7", "there is no key train.stpes (run.toml, line 12); the nearest is train.steps"),
        ("steps = 7", 'steps = "7"', 'train.steps must be a whole number; got "7" (string; run.toml, line 12)'),
        ("[output]", "[ouput]", "output.path"),
        ("steps = 7", "steps 7", "run.toml, line 12"),
        ("[train]", "[model]", "run.toml, line 11"),
        ("[model]", "train = 3\n[model]", "run.toml, line 12"),
        ("[model]", "model = 3\n[other]", "model"),
        ("[model]", "\0", "run.toml, line 1"),
        ("[model]", "[" * 10000, "run.toml, line 1"),
    ],
)
def test_wrong_files(train, right, wrong, complaint):
    train.file.write_text(RUN_FILE.replace(right, wrong, 1))
    assert complaint in train.complaint()


def test_a_file_that_is_not_there(comba):
    complaint = comba.fail(1, "train", "--config", "nowhere.toml", "--print-config")
    assert "cannot open 'nowhere.toml': No such file or directory" in complaint


def test_a_model_is_needed(comba):
    assert "[train] needs a model" in comba.fail(2, "train", "--data", "data", "--out", "run", "--print-config")


def test_letters_beyond_ascii_are_told_of_or_kept(train):
    assert train("--set", "output.path=\u00e9t\u00e9")["output"]["path"] == "\u00e9t\u00e9"
    text = train.file.read_text()
    train.file.write_text(text.replace("steps", "\u00e9 = 1\nsteps"))
    assert "run.toml, line 12" in train.complaint()
    train.file.write_text(text.replace("steps = 7", "steps\u00e9= 7"))
    assert "run.toml, line 12" in train.complaint()


def test_a_setting_that_is_no_utf8_is_told(train):
    result = subprocess.run(
        [train.program.path, "train", "--config", "run.toml", "--out", b"run\x81", "--print-config"],
        cwd=train.file.parent, capture_output=True,
    )  # fmt: skip
    assert result.returncode == 2 and result.stdout == b""
    assert result.stderr == b"comba: error: [config] output.path must be text in UTF-8; got 'run\x81'\n"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.name)
def test_every_run_file_of_the_tree_is_read(comba, path):
    written = tomllib.loads(path.read_text())
    command = "ablate" if "ablation" in written else "train"
    printed = Program(comba.path, ROOT).succeed(command, "--config", path, "--data", "x", "--out", "y", "--print-config")
    settings = tomllib.loads(printed)
    for section, values in written.items():
        values.pop("file", None)  # what it holds is printed instead
        values.pop("path", None)  # flags are over it
        assert {name: settings[section][name] for name in values} == values


def test_the_papers_recipe(comba):
    def train(name):
        flags = ("--data", "x", "--out", "y", "--print-config")
        return tomllib.loads(Program(comba.path, ROOT).succeed("train", "--config", f"configs/{name}", *flags))["train"]

    for name, steps, tokens in (("comba-340m.toml", 30720, 2**19), ("comba-1.3b.toml", 102400, 2**20)):
        recipe = train(name)
        assert (recipe["steps"], recipe["batch_size"] * recipe["context_length"]) == (steps, tokens)
        assert (recipe["learning_rate"], recipe["warmup_steps"], recipe["final_learning_rate"]) == (3e-4, 1024, 0.1)
        assert (recipe["beta1"], recipe["beta2"], recipe["epsilon"]) == (0.9, 0.95, 1e-8)
        assert (recipe["weight_decay"], recipe["max_gradient_norm"], recipe["dtype"]) == (0.01, 1.0, "bf16")
