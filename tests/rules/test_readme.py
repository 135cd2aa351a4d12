"""What the documents show exists: links lead somewhere, make targets are there, comba commands take these flags."""

import itertools
import pathlib
import re
import shlex
import subprocess

import pytest

from rules import readme, tree

DOCUMENTS = [f for f in tree.files() if f.endswith(".md")]
MAKE_TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)


def broken_links(path: str, text: str) -> list[str]:
    """Links into the tree that lead nowhere. Links to the web are not followed: tests need no network."""
    here = (tree.ROOT / path).parent
    local = [link.split("#")[0] for link in readme.links(text) if not re.match(r"https?://|#", link)]
    return [link for link in local if not (here / link).exists()]


def unknown_flags(program: pathlib.Path, command: str) -> list[str]:
    """What a `comba` command line has that `--help` of its subcommand does not know."""
    words = shlex.split(command)[1:]
    subcommands: list[str] = []
    help_text = ""
    # The longest run of leading words that names a subcommand; a flag would take --help for its value.
    leading = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    for end in range(min(len(leading), 2) + 1):
        attempt = subprocess.run([program, *words[:end], "--help"], capture_output=True, text=True)
        if attempt.returncode != 0:
            break
        if end == 0 or re.search(rf"\b{re.escape(words[end - 1])}\b", attempt.stdout):
            subcommands, help_text = words[:end], attempt.stdout
    if re.search(r"^subcommands:", help_text, re.MULTILINE | re.IGNORECASE):  # the next word should have named one
        return words[len(subcommands) :][:1]
    flags = [word.split("=")[0] for word in words if word.startswith("-")]
    return [flag for flag in flags if not re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", help_text)]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_links_lead_somewhere(path):
    assert broken_links(path, tree.read(path)) == []


@pytest.mark.parametrize("path", DOCUMENTS)
def test_make_targets_exist(path):
    known = set(MAKE_TARGET.findall(tree.read("Makefile")))
    shown = {target for c in readme.commands(tree.read(path)) if c.startswith("make") for target in c.split()[1:] if "=" not in target}
    assert shown <= known


@pytest.mark.parametrize("command", [c for path in DOCUMENTS for c in readme.commands(tree.read(path)) if c.startswith("comba ")])
def test_comba_commands_take_these_flags(comba_program, command):
    assert unknown_flags(comba_program, command) == []


@pytest.mark.parametrize("command", [c for path in DOCUMENTS for c in readme.commands(tree.read(path))])
def test_files_named_in_commands_exist(command):
    for word in shlex.split(command):
        if re.match(r"(?:configs|scripts|tests|docs)/", word):
            assert (tree.ROOT / word).exists(), f"{command}: {word} is not there"


def test_every_make_target_is_explained():
    makefile = tree.read("Makefile")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    helped = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    assert set(phony) - set(helped) <= {"require-fixtures"}


def test_broken_links_are_seen():
    assert broken_links("README.md", "[a](no/such/file.md) [b](README.md)") == ["no/such/file.md"]


@pytest.mark.parametrize("command", ["comba trian --config x", "comba data pack x --uot y", "comba data unpack x"])
def test_wrong_commands_are_seen(comba_program, command):
    assert unknown_flags(comba_program, command)
