"""Rules for the text of the sources: who may print, how long a file may be, what must not stand in it."""

import pathlib
import re

import pytest

from rules import tree

MAX_LINES = 400
LENGTH_SUFFIXES = tree.CODE_SUFFIXES | {".py", ".sh", ".cmake", ".md"}

# Printing, ending the process, and reading its arguments or environment are for programs, not for libraries.
PROGRAM_ONLY = re.compile(
    r"\b(?:std::c(?:out|err|log|in)|std::w?cout|std::print(?:ln)?|fmt::print(?:ln)?)\b"
    r"|\b(?:printf|fprintf|vprintf|vfprintf|puts|fputs|putchar|perror|exit|_exit|_Exit|quick_exit|abort|terminate"
    r"|getenv|secure_getenv|setenv|putenv)\s*\("
    r"|\bargv\b|\benviron\b|#\s*include\s*<(?:iostream|print)>"
)
ENVIRONMENT_FILES = {"src/base/environment.cpp"}

# Folders of one person's machine. What every Linux has, such as /usr/include, may be named.
MACHINE_PATH = re.compile(r"(?<![\w.}$)*-])/(?:home|root|Users|work|mnt|media|scratch|tmp|data)/\w")


def program_only_calls(path: str, text: str) -> list[str]:
    if path in ENVIRONMENT_FILES:
        return []
    lines = tree.without_comments_and_strings(text).splitlines()
    return [f"{path}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if PROGRAM_ONLY.search(line)]


def machine_paths(path: str, text: str) -> list[str]:
    return [f"{path}:{n}: {line.strip()}" for n, line in enumerate(text.splitlines(), 1) if MACHINE_PATH.search(line)]


def is_text(path: str) -> bool:
    return b"\0" not in (tree.ROOT / path).read_bytes()


TEXT_FILES = [f for f in tree.files() if is_text(f) and f != "tests/rules/test_source_rules.py"]


@pytest.mark.parametrize("path", tree.code_files("src/", "include/"))
def test_libraries_do_not_act_as_programs(path):
    assert program_only_calls(path, tree.read(path)) == []


@pytest.mark.parametrize("path", [f for f in tree.files() if pathlib.Path(f).suffix in LENGTH_SUFFIXES])
def test_files_are_short(path):
    assert len(tree.read(path).splitlines()) <= MAX_LINES


def test_the_readme_is_short():
    assert len(tree.read("README.md").splitlines()) <= 150


@pytest.mark.parametrize("path", tree.code_files())
def test_headers_are_guarded_and_files_end_in_a_newline(path):
    text = tree.read(path)
    assert text.endswith("\n")
    # -inl.h is included once per instruction set; _c.h is for C compilers of any kind.
    if path.endswith((".h", ".cuh")) and not path.endswith(("-inl.h", "_c.h")):
        assert text.count("#pragma once") == 1


def test_no_paths_of_one_machine():
    assert [hit for path in TEXT_FILES for hit in machine_paths(path, tree.read(path))] == []


def test_no_unfinished_business():
    marks = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
    assert [path for path in TEXT_FILES if marks.search(tree.read(path))] == []


@pytest.mark.parametrize(
    "line",
    ['std::cout << 1;', 'printf("x");', "std::exit(1);", "exit (2);", 'getenv("HOME");', "f(argv[1]);", "#include <iostream>"],
)
def test_program_only_calls_are_seen(line):
    assert program_only_calls("src/nn/x.cpp", line)


@pytest.mark.parametrize("line", ['// printf("x")', 'throw Error("exit (now)");', "snprintf(buffer, 3, f);", "at_exit_of_loop(x);"])
def test_harmless_lines_pass(line):
    assert program_only_calls("src/nn/x.cpp", line) == []


@pytest.mark.parametrize("line", ['open("/home/me/x")', "cd /root/comba", "/work/shared"])
def test_machine_paths_are_seen(line):
    assert machine_paths("x", line)


@pytest.mark.parametrize("line", ["/usr/include/c++/12", "build/work/x", "$ROOT/work/x", "${dir}/tmp/y", "https://x.org/data/y"])
def test_general_paths_pass(line):
    assert machine_paths("x", line) == []
