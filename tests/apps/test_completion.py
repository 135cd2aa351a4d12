"""Completion of command lines: by the shells themselves, with the scripts that the program prints."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from apps.program import Program

SHELLS = ("bash", "zsh", "fish")


def subcommands(help_text: str) -> list[str]:
    section = re.search(r"^Subcommands:\n((?:  .*\n)+)", help_text, re.MULTILINE)
    return re.findall(r"^  ([a-z]+) ", section.group(1), re.MULTILINE) if section else []


def flags(help_text: str) -> set[str]:
    return {name for names in re.findall(r"^  (-[^\s]*)", help_text, re.MULTILINE) for name in names.split(",")}


@pytest.fixture(scope="module")
def folder(comba_program, tmp_path_factory) -> Program:
    """A folder with the scripts, and with things whose names a completion may offer."""
    comba = Program(comba_program, tmp_path_factory.mktemp("completion"))
    for shell in SHELLS:
        (comba.folder / f"for.{shell}").write_text(comba.succeed("completion", shell))
    for name in ("data.dir", "data two"):
        (comba.folder / name).mkdir()
    (comba.folder / "data.txt").touch()
    return comba


def run_shell(comba, shell: str, script: str) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    environment = {**os.environ, "PATH": f"{comba.path.parent}:{os.environ['PATH']}", "HOME": str(comba.folder)}
    quiet = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    result = subprocess.run(
        [shell, *quiet, "-c", script], cwd=comba.folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0 and result.stderr == "", result.stderr
    return result.stdout.splitlines()


def bash_call(line: str) -> str:
    """Completes the last word of `line`, split as readline splits it."""
    words = [part for word in shlex.split(line) for part in re.split(r"(=)", word) if part]
    words += [""] if line.endswith((" ", "=")) else []
    return f"""
        COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}
        _comba comba {shlex.quote(words[-1])} {shlex.quote(words[-2])}
        printf '%s ' {shlex.quote(line)}; printf '\\t%s' "${{COMPREPLY[@]}}"; echo
    """


def bash(comba, *lines: str) -> list[list[str]]:
    """What bash offers for each line."""
    script = "source for.bash; complete -p comba > /dev/null || exit 1\n" + "".join(map(bash_call, lines))
    printed = run_shell(comba, "bash", script)
    assert len(printed) == len(lines)
    return [sorted(offer for offer in line.split("\t")[1:] if offer) for line in printed]


def fish(comba, line: str) -> list[str]:
    offers = run_shell(comba, "fish", f"source for.fish; complete -C {shlex.quote(line)}")
    return sorted(offer.split("\t")[0] for offer in offers)


OFFERS = [
    ("comba tr", ["train"]),
    ("comba data ", ["info", "pack", "tokenizer"]),
    ("comba data pack --ov", ["--overwrite"]),
    ("comba data pack --heldout ", ["files", "tail"]),
    ("comba data pack --heldout=t", ["tail"]),
    ("comba data pack --out data --heldout t", ["tail"]),  # `data` is a value here
    ("comba eval --split h", ["heldout"]),
    ("comba generate --dtype ", ["bf16", "f32"]),
    ("comba mqar --setting ", ["figure2", "mixture", "small"]),
    ("comba train --set ", []),
    ("comba train --data data", ["data two", "data.dir"]),
    ("comba train --data=data", ["data two", "data.dir"]),
    ("comba train --config data.", ["data.dir", "data.txt"]),
    ("comba data pack data.t", ["data.txt"]),
    ("comba completion ", ["bash", "fish", "zsh"]),
]


@pytest.mark.parametrize("line, offers", OFFERS)
def test_bash_completes(folder, line, offers):
    assert bash(folder, line) == [offers]


@pytest.mark.parametrize("line, offers", OFFERS)
def test_fish_completes(folder, line, offers):
    # fish offers whole words, and a slash behind folders.
    plain = [re.sub(r"^--[a-z-]+=", "", offer).rstrip("/").replace("\\ ", " ") for offer in fish(folder, line)]
    assert plain == offers


def test_every_command_and_flag_is_offered(folder):
    known, commands = {}, [()]
    while commands:
        command = commands.pop()
        help_text = folder.succeed(*command, "--help")
        names = subcommands(help_text)
        commands += [(*command, name) for name in names if name != "bench"]  # bench is a program of its own
        known[" ".join(("comba", *command))] = (sorted(names), flags(help_text))
    assert "comba data pack" in known
    offered = bash(folder, *(f"{line} -" for line in known), *(f"{line} " for line in known))
    for (line, (names, of_line)), for_flag, for_word in zip(known.items(), offered, offered[len(known) :]):
        assert {"--help", "-h"} <= of_line
        assert set(for_flag) == of_line, line
        assert not names or for_word == names, line
    for shell in SHELLS:
        script = (folder.folder / f"for.{shell}").read_text()
        for line, (names, of_line) in known.items():
            for name in (*names, *of_line):
                assert name.lstrip("-") in script, f"{shell}: {line} {name}"


def zsh(comba, line: str) -> list[str]:
    """What the script asks zsh to offer: zsh itself completes in a terminal only."""
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    script = f"""
        compdef() {{ functions _comba > /dev/null }}
        compadd() {{ shift; print -l -- "$@" }}
        compset() {{ PREFIX=${{PREFIX#*=}} }}
        _describe() {{ local list=${{@[-1]}}; print -l -- ${{${{(P@)list}}%%:*}} }}
        _files() {{ [[ $1 == -/ ]] && print -l -- *(/) || print -l -- * }}
        source ./for.zsh
        words=({shlex.join(words)}) CURRENT={len(words)} PREFIX={shlex.quote(words[-1])}
        _comba
        print -r -- "PREFIX $PREFIX"
    """
    *offers, prefix = run_shell(comba, "zsh", script)
    return sorted(offer for offer in offers if offer.startswith(prefix.removeprefix("PREFIX ")))


@pytest.mark.parametrize("line, offers", OFFERS)
def test_zsh_completes(folder, line, offers):
    assert zsh(folder, line) == offers


def test_a_shell_without_completion_is_named(comba):
    assert "tcsh" in comba.fail(2, "completion", "tcsh")
