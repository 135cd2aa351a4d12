"""The tree configures where something is missing, and says plainly what is."""

import os
import pathlib
import subprocess

import pytest

from rules import tree

CMAKE = tree.ROOT / ".venv" / "bin" / "cmake"


def configure(build: pathlib.Path, *flags: str) -> subprocess.CompletedProcess:
    """Configures with every CUDA toolkit of this machine out of sight."""
    searched = [*os.environ["PATH"].split(":"), "/usr/local/bin", "/usr/local/cuda/bin"]
    hidden = {folder for folder in searched if (pathlib.Path(folder) / "nvcc").exists()}
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA", "COMBA"))}
    env["PATH"] = ":".join([str(CMAKE.parent), *(d for d in searched if d not in hidden)])
    command = [CMAKE, "-S", tree.ROOT, "-B", build, "-G", "Ninja", f"-DCMAKE_IGNORE_PATH={';'.join(hidden)}", *flags]
    return subprocess.run(command, capture_output=True, text=True, env=env)


def test_no_cuda_toolkit_at_all(tmp_path):
    result = configure(tmp_path)
    assert result.returncode == 0, result.stderr
    assert "CUDA: off" in result.stdout
    assert "CMAKE_CUDA_COMPILER:" not in (tmp_path / "CMakeCache.txt").read_text()


def test_cuda_asked_for_without_a_toolkit_is_an_error_that_says_so(tmp_path):
    result = configure(tmp_path, "-DCOMBA_CUDA=ON")
    assert result.returncode != 0
    assert "COMBA_CUDA=ON needs nvcc" in result.stderr


def test_the_floor_without_libtorch_needs_no_python_packages(tmp_path):
    result = configure(tmp_path, "-DCOMBA_TORCH=OFF", "-DCOMBA_PYTHON=COMBA_PYTHON-NOTFOUND")
    assert result.returncode == 0, result.stderr
    assert "LibTorch" not in result.stdout


def test_without_the_headers_of_gloo_it_says_what_will_be_missing(tmp_path):
    result = configure(tmp_path, "-DCOMBA_GLOO_INCLUDE=OFF")
    assert result.returncode == 0, result.stderr
    assert "Gloo: off, training in one process only (install libgloo-dev for more)" in result.stdout


@pytest.mark.parametrize("value", ["memory", "leak"])
def test_an_unknown_sanitizer_is_named(tmp_path, value):
    result = configure(tmp_path, f"-DCOMBA_SANITIZE={value}", "-DCOMBA_TORCH=OFF")
    assert result.returncode != 0
    assert f"got '{value}'" in result.stderr


def test_a_wheel_around_operators_that_are_not_built_is_refused(tmp_path):
    result = configure(tmp_path, "-DCOMBA_TORCH_LIBRARY=build/nothing/libcomba_torch.so")
    assert result.returncode != 0
    assert "build/nothing/libcomba_torch.so is not there" in " ".join(result.stderr.split())
