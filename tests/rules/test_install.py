"""An installed library serves a stranger: the README's example is built against it and run."""

import math
import subprocess

import pytest

from rules import readme, tree

CMAKE = tree.ROOT / ".venv" / "bin" / "cmake"


def run(*command) -> str:
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def prefix(build_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    run(CMAKE, "--install", build_dir, "--prefix", folder)
    return folder


def test_the_readme_example_builds_and_runs(prefix, tmp_path):
    (cmake,), (code,) = readme.blocks("cmake"), readme.blocks("cpp")
    (tmp_path / "CMakeLists.txt").write_text(cmake)
    (tmp_path / "main.cpp").write_text(code)
    build = tmp_path / "build"
    run(CMAKE, "-S", tmp_path, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    run(CMAKE, "--build", build)
    # All keys are one unit vector, so what is stored under it, x <- e^g x + beta (1 - x), reaches its fixed point, and
    # the query reads it times K^-1/2.
    stored = 0.5 / (1 - math.exp(-0.01) + 0.5)
    assert float(run(build / "example")) == pytest.approx(stored / 8, abs=1e-4)


def test_the_installed_program_runs(prefix):
    assert "Usage" in run(prefix / "bin" / "comba", "--help")
