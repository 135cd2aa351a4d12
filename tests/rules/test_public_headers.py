"""A public header stands alone: it compiles by itself and needs nothing but the standard library."""

import re
import subprocess

import pytest

from rules import tree

HEADERS = [f for f in tree.files() if f.startswith("include/comba/")]


def foreign_includes(text: str) -> list[str]:
    """Includes that are neither of this library nor of the standard library of C++ or C."""
    return [
        included
        for _, kind, included in tree.includes(text)
        if not (included.startswith("comba/") if kind == '"' else re.fullmatch(r"[a-z_]+|std(?:int|def|bool)\.h", included))
    ]


def compile_errors(source: str, language: str = "c++", standard: str = "c++20") -> str:
    command = ["g++", f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-x", language, "-"]
    command += ["-I", str(tree.ROOT / "include")]
    return subprocess.run(command, input=source, capture_output=True, text=True).stderr


def test_there_are_public_headers():
    assert HEADERS


@pytest.mark.parametrize("path", HEADERS)
def test_needs_only_the_standard_library(path):
    assert foreign_includes(tree.read(path)) == []


@pytest.mark.parametrize("path", HEADERS)
def test_compiles_alone_and_twice(path):
    line = f'#include "{path.removeprefix("include/")}"\n'
    assert compile_errors(line + line) == ""


@pytest.mark.parametrize("path", [h for h in HEADERS if h.endswith("_c.h")])
def test_the_c_interface_is_c(path):
    assert compile_errors(f'#include "{path.removeprefix("include/")}"\n', "c", "c11") == ""


@pytest.mark.parametrize("line", ["#include <torch/torch.h>", "#include <cuda_runtime.h>", '#include "base/half.h"'])
def test_foreign_includes_are_seen(line):
    assert foreign_includes(line)


def test_a_header_that_does_not_stand_alone_is_seen():
    assert compile_errors("std::string name();") != ""
