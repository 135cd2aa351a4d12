"""What a user meets first: help, version, errors of usage, exit codes."""

import json
import re
import subprocess

import pytest

from apps.program import Program
from rules.tree import ROOT


def subcommands(help_text: str) -> list[str]:
    section = re.search(r"^Subcommands:\n((?:  .*\n)+)", help_text, re.MULTILINE)
    return re.findall(r"^  ([a-z]+) ", section.group(1), re.MULTILINE) if section else []


@pytest.fixture(scope="module")
def help_texts(comba_program, tmp_path_factory) -> dict[tuple[str, ...], str]:
    """What --help says, of every command there is."""
    program = Program(comba_program, tmp_path_factory.mktemp("help"))
    texts, commands = {}, [()]
    while commands:
        command = commands.pop()
        texts[command] = program.succeed(*command, "--help")
        commands += [(*command, name) for name in subcommands(texts[command])]
    return texts


def test_every_command_explains_itself_with_examples_of_its_own(help_texts):
    assert {("data", "pack"), ("train",), ("eval",), ("generate",), ("inspect", "model")} <= set(help_texts)
    for command, text in help_texts.items():
        examples = re.findall(r"^  (?:COMBA_\w+=\S+ )?comba (.*)$", text.split("Examples:")[-1], re.MULTILINE)
        assert examples, f"{command} has no example"
        for example in examples:
            assert tuple(example.split()[: len(command)]) == command, f"{command} shows {example}"


def test_help_fits_a_terminal(help_texts):
    for text in help_texts.values():
        for line in text.splitlines():
            assert len(line) <= 120, line


def test_flags_of_examples_exist(help_texts):
    for text in help_texts.values():
        for example in re.findall(r"^  (?:COMBA_\w+=\S+ )?comba (.*)$", text, re.MULTILINE):
            words = example.split(" > ")[0].split()
            command = max((c for c in help_texts if tuple(words[: len(c)]) == c), key=len)
            for flag in re.findall(r"(?<=\s)--[a-z-]+", example):
                assert re.search(rf"^  (-\w,)?{flag}\b", help_texts[command], re.MULTILINE), f"comba {example}: {flag}"


@pytest.mark.parametrize("group", [[], ["data"], ["inspect"]])
def test_a_command_that_is_not_complete_shows_its_help(comba, group):
    assert comba.succeed(*group) == comba.succeed(*group, "--help")


def test_version_says_how_the_program_was_built(comba):
    first, *facts = comba.succeed("--version").splitlines()
    assert re.fullmatch(r"comba \d+\.\d+\.\d+ \(\w+, g\+\+ [\d.]+, LibTorch [\d.]+\)", first)
    facts = dict(re.split(r"  +", fact) for fact in facts)
    assert set(facts) == {"commit", "CUDA", "implementations", "license", "processes"}
    implementations = comba.succeed("inspect", "implementations").splitlines()[1:]
    assert facts["implementations"].split(", ") == [line.split()[1] for line in implementations]
    assert (facts["CUDA"] != "none") == ("cuda.generic" in facts["implementations"])
    assert re.fullmatch(r"none|[\d.]+ for \d+a?( \d+a?)*", facts["CUDA"])

    told = json.loads(comba.succeed("--version", "--json"))
    assert first == f"comba {told['version']} ({told['build_type']}, {told['compiler']}, LibTorch {told['libtorch']})"
    assert (told["commit"], told["license"]) == (facts["commit"], facts["license"])
    assert told["implementations"] == facts["implementations"].split(", ")
    assert "--version" in comba.fail(2, "--json")


def test_the_commit_is_one_of_this_tree(comba):
    commit = json.loads(comba.succeed("--version", "--json"))["commit"]
    in_git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True).returncode == 0
    if not in_git:
        pytest.skip("not a git tree")
    kind = subprocess.run(["git", "cat-file", "-t", commit], cwd=ROOT, capture_output=True, text=True)
    assert kind.stdout == "commit\n", f"{commit}: {kind.stderr}"


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--versio"], "unknown flag '--versio'; the nearest is '--version' (see comba --help)"),
        (["dta"], "unknown argument 'dta'; the nearest is 'data' (see comba --help)"),
        (["data", "pck"], "unknown argument 'pck'; the nearest is 'pack' (see comba data --help)"),
        (["data", "pack", "x", "--uot", "y"], "unknown flag '--uot'; the nearest is '--out' (see comba data pack --help)"),
        (["data", "pack", "x", "--overwite=1"], "unknown flag '--overwite'; the nearest is '--overwrite'"),
        (["inspect", "model", "x", "y"], "unknown argument 'y' (see comba inspect model --help)"),
        (["data", "info", "x", "y", "--documents", "train"], "--documents lists those of one data set; got 2 data sets"),
        (["train", "--confg", "run.toml"], "unknown flag '--confg'; the nearest is '--config' (see comba train --help)"),
        (["data", "pack", "x"], "--out is required (see comba data pack --help)"),
        (["data", "pack", "--out"], "--out"),
        (["data", "pack", "x", "--out", "y", "--heldout", "some"], "some not in {files,tail}"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(comba, arguments, complaint):
    assert complaint in comba.fail(2, *arguments)


def test_a_full_disk_behind_stdout_is_a_failure(comba):
    with open("/dev/full", "w") as full:
        result = subprocess.run([comba.path, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert result.stderr == "comba: error: cannot write to standard output\n"


def test_a_closed_pipe_ends_the_program_without_a_word(comba, text_folder):
    comba.succeed("data", "pack", text_folder, "--out", "data")
    command = [comba.path, "data", "info", "data", "--documents", "train"]
    process = subprocess.Popen(command, cwd=comba.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() in (0, -13)  # 0: it had already written all of it
