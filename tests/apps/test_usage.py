"""What a user meets first: help, version, errors of usage, exit codes."""

import re
import subprocess

import pytest


def subcommands(help_text: str) -> list[str]:
    section = re.search(r"^Subcommands:\n((?:  .*\n)+)", help_text, re.MULTILINE)
    return re.findall(r"^  ([a-z]+) ", section.group(1), re.MULTILINE) if section else []


def all_commands(comba, *prefix: str) -> list[tuple[str, ...]]:
    commands = [prefix]
    for name in subcommands(comba.succeed(*prefix, "--help")):
        commands += all_commands(comba, *prefix, name)
    return commands


def test_every_command_explains_itself_with_examples_that_parse(comba):
    commands = all_commands(comba)
    assert {("data", "pack"), ("train",), ("eval",), ("generate",), ("inspect", "model")} <= set(commands)
    for command in commands:
        text = comba.succeed(*command, "--help")
        examples = re.findall(r"^  (?:COMBA_\w+=\S+ )?comba (.*)$", text.split("Examples:")[-1], re.MULTILINE)
        assert examples, f"{command} has no example"
        for example in examples:
            named = tuple(example.split()[: len(command)])
            assert named == command, f"{command} shows {example}"


def test_help_fits_a_terminal(comba):
    for command in all_commands(comba):
        for line in comba.succeed(*command, "--help").splitlines():
            assert len(line) <= 120, line


@pytest.mark.parametrize("group", [[], ["data"], ["inspect"]])
def test_a_command_that_is_not_complete_shows_its_help(comba, group):
    assert comba.succeed(*group) == comba.succeed(*group, "--help")


def test_version_says_how_the_program_was_built(comba):
    assert re.fullmatch(r"comba \d+\.\d+\.\d+ \(\w+, g\+\+ [\d.]+, LibTorch [\d.]+\)\n", comba.succeed("--version"))


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--versio"], "unknown flag '--versio'; the nearest is '--version' (see comba --help)"),
        (["dta"], "unknown argument 'dta'; the nearest is 'data' (see comba --help)"),
        (["data", "pck"], "unknown argument 'pck'; the nearest is 'pack' (see comba data --help)"),
        (["data", "pack", "x", "--uot", "y"], "unknown flag '--uot'; the nearest is '--out' (see comba data pack --help)"),
        (["data", "pack", "x", "--overwite=1"], "unknown flag '--overwite'; the nearest is '--overwrite'"),
        (["data", "info", "x", "y"], "unknown argument 'y' (see comba data info --help)"),
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
