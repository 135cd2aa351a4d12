"""Training on several data sets at once."""

import re
import shutil

import pytest

from apps.training_run import RUN_FILE, weights


@pytest.fixture
def mixed(comba):
    """The program in a folder with two data sets and a run file that mixes them."""
    for name, size in (("web", 12), ("code", 4)):
        texts = comba.folder / name
        texts.mkdir()
        for letter in "abcd":  # c.txt is held out
            (texts / f"{letter}.txt").write_text(f"The {name} of {letter}. " * size)
        comba.succeed("data", "pack", name, "--out", f"{name}.data")
    mixture = '[{path = "web.data", weight = 3}, {path = "code.data", weight = 1.0}]'
    (comba.folder / "run.toml").write_text(RUN_FILE + f'\n[data]\npath = "web.data"\nmixture = {mixture}\n')
    return comba


TRAIN = ("train", "--config", "run.toml", "--out")


def test_a_run_says_what_it_reads_and_differs_from_that_of_one_data_set(mixed):
    told = mixed(*TRAIN, "mixed").stderr
    shares = re.search(r"data: 75.0% web.data \(([\d.]+) epochs\), 25.0% code.data \(([\d.]+) epochs\)", told)
    assert shares, told
    code_tokens = 3 * (4 * len("The code of a. ") + 1)
    assert float(shares[2]) == pytest.approx(60 * 2 * 32 / 4 / code_tokens, abs=0.01)
    for name in ("web", "code"):
        only = f'data.mixture=[{{path="{name}.data", weight=1}}]'
        mixed.succeed(*TRAIN, f"only-{name}", "--set", only)
    assert len({weights(mixed, run) for run in ("mixed", "only-web", "only-code")}) == 3


def test_a_mixture_of_one_is_that_data_set(mixed):
    mixed.succeed(*TRAIN, "one", "--set", 'data.mixture=[{path="web.data", weight=0.3}]')
    plain = (mixed.folder / "run.toml").read_text().split("mixture =")[0]
    (mixed.folder / "plain.toml").write_text(plain)
    mixed.succeed("train", "--config", "plain.toml", "--out", "plain")
    assert weights(mixed, "one") == weights(mixed, "plain")


def test_the_mixture_is_among_the_settings_in_force(mixed):
    printed = mixed.succeed(*TRAIN, "run", "--print-config")
    assert 'mixture = [{path = "web.data", weight = 3}, {path = "code.data", weight = 1.0}]' in printed
    (mixed.folder / "again.toml").write_text(printed)
    assert mixed.succeed("train", "--config", "again.toml", "--print-config") == printed


@pytest.mark.parametrize(
    "mixture, told",
    [
        ("[]", "at least one"),
        ('"web.data"', "must be a list"),
        ('["web.data"]', 'got "web.data"'),
        ('[{path="web.data"}]', 'got {"path":"web.data"}'),
        ('[{path="web.data", weight="1"}]', '"weight":"1"'),
        ('[{path="web.data", weight=0}]', "got 0 (web.data)"),
        ('[{path="web.data", weight=1}, {path="code.data", weight=-2}]', "got -2 (code.data)"),
        ('[{path="web.data", weight=inf}]', "inf"),
        ('[{path="web.data", weight=nan}]', "nan"),
    ],
)
def test_a_wrong_mixture_is_told(mixed, mixture, told):
    error = mixed.fail(2, *TRAIN, "run", "--set", f"data.mixture={mixture}")
    assert told in error.lower()
    assert not (mixed.folder / "run").exists()


def test_a_missing_or_short_data_set_is_named(mixed):
    shutil.rmtree(mixed.folder / "code.data")
    assert "code.data" in mixed.fail(1, *TRAIN, "run")
    (mixed.folder / "short").mkdir()
    (mixed.folder / "short" / "a.txt").write_text("short")
    mixed.succeed("data", "pack", "short", "--out", "code.data")
    error = mixed(*TRAIN, "run").stderr.splitlines()[-1]
    assert "context_length (32); got 6 (code.data)" in error
