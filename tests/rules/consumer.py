"""Builds libcomba, and programs of strangers that use it."""

import math
import os
import pathlib
import shutil
import subprocess

import pytest

from rules import readme, tree

CMAKE = tree.ROOT / ".venv" / "bin" / "cmake"
FOLDER = tree.ROOT / "tests" / "rules" / "consumers"

# For a library that a test compiles itself: one instruction set and no optimisation, in a tenth of the time.
QUICK = ["-DCMAKE_CXX_FLAGS=-DHWY_COMPILE_ONLY_STATIC", "-DCMAKE_CXX_FLAGS_RELEASE=-O0"]


def run(*command, **options) -> str:
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build_with_cmake(source: pathlib.Path, build: pathlib.Path, *flags) -> pathlib.Path:
    """The program `example` of a project."""
    run(CMAKE, "-S", source, "-B", build, *flags)
    run(CMAKE, "--build", build, "--parallel", os.cpu_count())
    return build / "example"


def find_package_in_cpp(prefix: pathlib.Path, folder: pathlib.Path) -> str:
    """What the README's example prints, built with the README's CMakeLists.txt."""
    (cmake,) = readme.blocks("cmake")
    (folder / "CMakeLists.txt").write_text(cmake)
    write_readme_example(folder)
    return run(build_with_cmake(folder, folder / "build", f"-DCMAKE_PREFIX_PATH={prefix}"))


def find_package_in_c(prefix: pathlib.Path, folder: pathlib.Path) -> str:
    """What the C program prints in a project that knows no C++."""
    return run(build_with_cmake(FOLDER / "c", folder / "build", f"-DCMAKE_PREFIX_PATH={prefix}"))


def pkg_config(prefix: pathlib.Path, folder: pathlib.Path, compiler: str) -> str:
    """What the README's command of that compiler makes and runs."""
    write_readme_example(folder)
    shutil.copy(FOLDER / "c" / "main.c", folder)
    (command,) = [c for c in readme.commands() if c.startswith(compiler + " ")]
    run("sh", "-c", command, cwd=folder, env={**os.environ, "PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")})
    return run(folder / "example", env={**os.environ, "LD_LIBRARY_PATH": str(prefix / "lib")})


def write_readme_example(folder: pathlib.Path) -> None:
    (code,) = readme.blocks("cpp")
    (folder / "main.cpp").write_text(code)


def check_cpp(printed: str) -> None:
    # All keys are one unit vector, so what is stored under it, x <- e^g x + beta (1 - x), reaches its fixed point, and
    # the query reads it times K^-1/2.
    stored = 0.5 / (1 - math.exp(-0.01) + 0.5)
    assert float(printed) == pytest.approx(stored / 8, abs=1e-4)


def check_c(printed: str) -> None:
    result, no_workspace, no_rule = printed.splitlines()
    assert result == "0 15"
    assert no_workspace.startswith("1 [delta_rule_forward] workspace must be given")
    assert no_rule == "1 [comba_delta_rule_options] rule must be a comba_rule; got 256"
